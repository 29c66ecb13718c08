"""Batches for `fit` without TensorFlow."""

import concurrent.futures
import os

import keras

from lsmha_keras.data.foreign_layer import call_foreign_layer


class BatchSequence(keras.utils.PyDataset):
    """The batches of several epochs, one after the other, made in background threads.

    It is endless for Keras (`num_batches` is None), which must therefore be told `steps_per_epoch`:
    so Keras neither shuffles the batches nor starts over, and batch number n is always batch
    `n % steps_per_epoch` of epoch `first_epoch + n // steps_per_epoch`.

    Args:
        plan: `EpochPlan`.
        first_epoch: int.
        epochs: int, the end (exclusive).
        prefetch: number of batches that are made ahead.
    """

    def __init__(self, plan, first_epoch=0, epochs=1, prefetch=4):
        super().__init__()
        self.plan = plan
        self.class_names = plan.source.class_names
        self.first_epoch = first_epoch
        self.epochs = epochs
        self.prefetch = prefetch
        self._pending = {}
        # Other packages' layers have a random state that threads would share.
        parallel = plan.policy is None or plan.policy.reproducible
        count = max(1, (os.cpu_count() or 2) - 1) if parallel else 1
        self._threads = concurrent.futures.ThreadPoolExecutor(count)

    @property
    def num_batches(self):
        """None, so that Keras takes batches in order from the beginning to the end."""
        return None

    def __len__(self):
        return (self.epochs - self.first_epoch) * self.plan.steps_per_epoch

    def __iter__(self):
        return (self[index] for index in range(len(self)))

    def __getitem__(self, index):
        if not 0 <= index < len(self):
            raise IndexError(
                f"There are {len(self)} batches, for epochs {self.first_epoch} .. "
                f"{self.epochs - 1}. Received: index={index}"
            )
        ahead = range(index, min(index + 1 + self.prefetch, len(self)))
        # What was asked for out of order before is not waited for.
        self._pending = {step: job for step, job in self._pending.items() if step in ahead}
        for step in ahead:
            if step not in self._pending:
                self._pending[step] = self._threads.submit(self._make, step)
        return self._pending.pop(index).result()

    def _make(self, index):
        step = self.first_epoch * self.plan.steps_per_epoch + index
        images, labels = self.plan.read(step)
        for own, run in self.plan.runs():
            if own:
                images, labels = self.plan.augment(run, step, images, labels)
            else:
                for _, layer in run:
                    images, labels = call_foreign_layer(layer, images, labels)
        return images, labels
