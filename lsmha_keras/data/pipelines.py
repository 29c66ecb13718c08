"""Input pipelines: images in order, or shuffled and augmented batches for `fit`."""

from __future__ import annotations

import concurrent.futures
import functools
import importlib.util
import os
from collections.abc import Sequence
from typing import Any

import keras
import numpy as np

from lsmha_keras._imports import import_quietly
from lsmha_keras.arguments import positive_int
from lsmha_keras.data.augmentation_policy import AugmentationPolicy, call_external_layer
from lsmha_keras.data.open_dataset import open_dataset
from lsmha_keras.errors import InputError
from lsmha_keras.types import PathLike

_READ_AT_ONCE = 256


def load_dataset(
    name: PathLike,
    split: str = "train",
    data_dir: PathLike | None = None,
    image_size: int | Sequence[int] | None = None,
    batch_size: int | None = None,
) -> Any:
    """Loads labelled images in order, without augmentation.

    Args:
        name: "digits", "cifar10", "cifar100", a folder of class folders, an `.npz` file, or any
            name of TensorFlow Datasets; see `open_dataset`.
        split: "train", "test", or a range such as "train[:90%]"; see `open_dataset`.
        data_dir: folder that holds the data. Default: the environment variable LSMHA_DATA_DIR.
        image_size: int or `(height, width)` to resize to; None keeps the stored size.
        batch_size: int, or None for single images (without TensorFlow, for batches of 128).

    Returns:
        A `tf.data.Dataset` of uint8 images, texts or float32 series, and int32 labels, with an
        attribute `class_names`.
        Without TensorFlow, a `keras.utils.PyDataset` of batches with the same attribute.

    Raises:
        ValueError: if the dataset or the split is unknown, or a file is damaged.
        ImportError: if an optional package that the dataset needs is not installed.

    Example:
        >>> import lsmha_keras as lsmha
        >>> dataset = lsmha.load_dataset("digits", "test", batch_size=32)
        >>> dataset.class_names[:3]
        ['0', '1', '2']
    """
    if batch_size is not None:
        batch_size = positive_int("batch_size", batch_size)
    source = open_dataset(name, split, data_dir, image_size)
    if has_tensorflow():
        return _tf_dataset(source, batch_size)
    return _Batches(source, batch_size or 128)


def _tf_dataset(source, batch_size):
    tf = import_quietly("tensorflow")

    count = len(source)
    at_once = batch_size or _READ_AT_ONCE

    def read(start):
        rows = range(int(start), min(int(start) + at_once, count))
        return source.load(rows), source.labels[rows.start : rows.stop]

    def load(start):
        types = [_tf_type(source), "int32"]
        images, labels = tf.numpy_function(read, [start], types, stateful=False)
        return (
            tf.ensure_shape(images, (None, *source.image_shape)),
            tf.ensure_shape(labels, (None,)),
        )

    dataset = tf.data.Dataset.range(0, count, at_once)
    dataset = dataset.map(load, num_parallel_calls=tf.data.AUTOTUNE, deterministic=True)
    if batch_size is None:
        dataset = dataset.unbatch().apply(tf.data.experimental.assert_cardinality(count))
    dataset = dataset.prefetch(tf.data.AUTOTUNE)
    dataset.class_names = source.class_names
    return dataset


def _tf_type(source):
    """Returns the dtype in TensorFlow of what a source loads: texts are Python objects in NumPy."""
    return "string" if source.dtype == object else source.dtype.name


class _Batches(keras.utils.PyDataset):
    def __init__(self, source, batch_size):
        super().__init__()
        self.source = source
        self.class_names = source.class_names
        self.batch_size = batch_size

    def __len__(self):
        return -(-len(self.source) // self.batch_size)

    def __getitem__(self, index):
        start = index * self.batch_size
        rows = range(start, min(start + self.batch_size, len(self.source)))
        if not rows:
            raise IndexError(f"There are {len(self)} batches. Received: index={index}")
        return self.source.load(rows), self.source.labels[rows.start : rows.stop]


def epoch_batches(
    source: Any,
    batch_size: int,
    policy: AugmentationPolicy | None = None,
    one_hot: bool = False,
    seed: int = 0,
    first_epoch: int = 0,
    epochs: int = 1,
    shuffle: bool = True,
    drop_remainder: bool = False,
) -> tuple[Any, int]:
    """Makes shuffled, augmented batches of several epochs for `fit`.

    The order of epoch e and the augmentation of its batch b depend on `(seed, e, b)` alone. A run
    that is resumed at epoch e thus sees the same batches as one that was never interrupted, with
    any number of threads, with TensorFlow or without. (Layers of other packages draw their own
    random numbers; they are called on one batch at a time, in order.)

    Args:
        source: `ImageDataset`, as `open_dataset` returns it.
        batch_size: int.
        policy: `AugmentationPolicy`, or None for no augmentation.
        one_hot: bool, whether to turn labels into one-hot float32 vectors. They always are with a
            policy that mixes labels.
        seed: int.
        first_epoch: int, the first epoch to make.
        epochs: int, the epoch to stop before.
        shuffle: bool, whether to shuffle the images of each epoch.
        drop_remainder: bool, whether to drop an incomplete last batch.

    Returns:
        A `tf.data.Dataset` (without TensorFlow, a `keras.utils.PyDataset`) that covers all epochs,
        and the number of batches in an epoch: pass both to `fit`, the latter as
        `steps_per_epoch`.

    Raises:
        ValueError: if a number is out of range.

    Example:
        >>> import lsmha_keras as lsmha
        >>> source = lsmha.open_dataset("digits", "train[:100]")
        >>> policy = lsmha.AugmentationPolicy.from_config({"flip": True}, source.image_shape, 10)
        >>> batches, steps = epoch_batches(source, 32, policy, epochs=2)
        >>> steps, len(batches)
        (4, 8)
    """
    if not 0 <= first_epoch < epochs:
        raise InputError(
            "`first_epoch` must be at least 0 and less than `epochs`. "
            f"Received: first_epoch={first_epoch}, epochs={epochs}"
        )
    plan = EpochPlan(source, batch_size, policy, one_hot, seed, shuffle, drop_remainder)
    if has_tensorflow():
        return _tf_batches(plan, first_epoch, epochs), plan.steps_per_epoch
    return BatchSequence(plan, first_epoch, epochs), plan.steps_per_epoch


def has_tensorflow():
    """Returns whether TensorFlow is installed.

    Returns:
        A bool.
    """
    return importlib.util.find_spec("tensorflow") is not None


def _tf_batches(plan, first_epoch, epochs):
    """Builds the pipeline: a `map` that reads, and one for each run of layers."""
    tf = import_quietly("tensorflow")

    steps = plan.steps_per_epoch
    dataset = tf.data.Dataset.range(first_epoch * steps, epochs * steps)
    runs = plan.runs()
    first = runs.pop(0)[1] if runs and runs[0][0] else []
    dataset = _map_in_parallel(dataset, _reader(plan, first))
    for own, run in runs:
        if own:
            dataset = _map_in_parallel(dataset, _augmenter(plan, run))
        else:
            # Not in parallel: threads would share the layer's random state.
            dataset = dataset.map(_external_caller(run))
    dataset = dataset.map(lambda step, images, labels: (images, labels))
    dataset = dataset.prefetch(tf.data.AUTOTUNE)
    dataset.class_names = plan.source.class_names
    return dataset


def _map_in_parallel(dataset, function):
    import tensorflow as tf

    return dataset.map(function, num_parallel_calls=tf.data.AUTOTUNE, deterministic=True)


def _reader(plan, run):
    import tensorflow as tf

    count = plan.batch_size if plan.drop_remainder else None
    types = [_tf_type(plan.source), "float32" if plan.one_hot else "int32"]

    def read(step):
        return plan.augment(run, step, *plan.read(step)) if run else plan.read(step)

    def read_in_graph(step):
        images, labels = tf.numpy_function(lambda n: read(int(n)), [step], types, stateful=False)
        images.set_shape((count, *plan.source.image_shape))
        labels.set_shape((count, plan.num_classes) if plan.one_hot else (count,))
        return step, images, labels

    return read_in_graph


def _augmenter(plan, run):
    import tensorflow as tf

    def augment_in_graph(step, images, labels):
        results = tf.numpy_function(
            lambda n, *batch: plan.augment(run, int(n), *batch),
            [step, images, labels],
            [images.dtype, labels.dtype],
            stateful=False,
        )
        for result, given in zip(results, (images, labels), strict=True):
            result.set_shape(given.shape)
        return step, *results

    return augment_in_graph


def _external_caller(run):
    def call_in_graph(step, images, labels):
        for _, layer in run:
            images, labels = call_external_layer(layer, images, labels)
        return step, images, labels

    return call_in_graph


class BatchSequence(keras.utils.PyDataset):
    """The batches of several epochs, made in background threads.

    To Keras it looks infinite (`num_batches` is None), so `fit` needs `steps_per_epoch`. Otherwise
    Keras would shuffle the batches and start over in every epoch. Here batch n is always batch
    `n % steps_per_epoch` of epoch `first_epoch + n // steps_per_epoch`.

    Args:
        plan: `EpochPlan`.
        first_epoch: int, the first epoch to make.
        epochs: int, the epoch to stop before.
        prefetch: int, number of batches to make ahead.
    """

    def __init__(self, plan, first_epoch=0, epochs=1, prefetch=4):
        super().__init__()
        self.plan = plan
        self.class_names = plan.source.class_names
        self.first_epoch = first_epoch
        self.epochs = epochs
        self.prefetch = prefetch
        self._pending = {}
        # Threads would share the random state of other packages' layers.
        parallel = plan.policy is None or plan.policy.reproducible
        count = max(1, (os.cpu_count() or 2) - 1) if parallel else 1
        self._threads = concurrent.futures.ThreadPoolExecutor(count)

    @property
    def num_batches(self):
        """None, so that Keras takes all batches in order."""
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
        # Batches that were made ahead, but are no longer next, are dropped without waiting.
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
                    images, labels = call_external_layer(layer, images, labels)
        return images, labels


# First numbers of the seeds, so that order and augmentation are independent.
_ORDER, _AUGMENTATION = 0, 1


class EpochPlan:
    """Decides on the images, labels and augmentation of each batch, from `(seed, epoch, batch)`.

    Args:
        source: `ImageDataset`.
        batch_size: int.
        policy: `AugmentationPolicy` or None.
        one_hot: bool, whether labels become one-hot vectors.
        seed: int.
        shuffle: bool, whether to shuffle the images, in a new order each epoch.
        drop_remainder: bool, whether to drop an incomplete last batch.

    Raises:
        ValueError: if `batch_size` is not positive, or larger than the source with
            `drop_remainder`.
    """

    def __init__(
        self, source, batch_size, policy, one_hot=False, seed=0, shuffle=True, drop_remainder=False
    ):
        batch_size = positive_int("batch_size", batch_size)
        if drop_remainder and batch_size > len(source):
            raise InputError(
                f"`batch_size` must not exceed the {len(source)} images of {source.name!r} when "
                f"the remainder is dropped. Received: batch_size={batch_size}"
            )
        self.source = source
        self.batch_size = batch_size
        self.policy = policy
        self.num_classes = len(source.class_names)
        self.one_hot = one_hot or (policy is not None and policy.mixes_labels)
        self.seed = seed
        self.shuffle = shuffle
        self.drop_remainder = drop_remainder
        self.steps_per_epoch = len(source) // batch_size
        if not drop_remainder and len(source) % batch_size:
            self.steps_per_epoch += 1
        # Threads work on at most two epochs at a time.
        self._order = functools.lru_cache(maxsize=2)(self._draw_order)

    def read(self, step):
        """Reads a batch without augmenting it.

        Args:
            step: int, number of the batch, counted from the first batch of epoch 0.

        Returns:
            `(batch, height, width, channels)` uint8 images, texts or series, and `(batch,)` int32
            labels or, if `one_hot`, `(batch, classes)` float32 labels.
        """
        epoch, batch = divmod(step, self.steps_per_epoch)
        start = batch * self.batch_size
        indices = self._order(epoch)[start : start + self.batch_size]
        labels = self.source.labels[indices]
        if self.one_hot:
            labels = (labels[:, None] == np.arange(self.num_classes)).astype("float32")
        return self.source.load(indices), labels

    def augment(self, run, step, images, labels):
        """Applies a run of the policy's own layers to a batch.

        Args:
            run: see `AugmentationPolicy.augment`.
            step: int, as for `read`.
            images: `(batch, height, width, channels)`.
            labels: as `read` returns them.

        Returns:
            The images and labels.
        """
        key = [_AUGMENTATION, self.seed, *divmod(step, self.steps_per_epoch)]
        return self.policy.augment(run, images, labels, key)

    def runs(self):
        """Returns the policy's runs of layers, or an empty list without a policy."""
        return [] if self.policy is None else self.policy.runs()

    def _draw_order(self, epoch):
        if not self.shuffle:
            return np.arange(len(self.source))
        return np.random.default_rng([_ORDER, self.seed, epoch]).permutation(len(self.source))
