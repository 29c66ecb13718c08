"""Single-head performance while a model trains."""

from __future__ import annotations

import copy
import math
import pathlib
from collections.abc import Sequence
from typing import Any

import keras

from lsmha_keras.arguments import positive_int
from lsmha_keras.data.labelled import ImageBatches, class_labels
from lsmha_keras.errors import InputError
from lsmha_keras.old_spellings import takes_old_arguments
from lsmha_keras.shp.performance import HeadFields
from lsmha_keras.shp.readout_trainer import ReadoutTrainer
from lsmha_keras.shp.shp_result import check_pooling
from lsmha_keras.training.checkpoint import ema_weights
from lsmha_keras.types import Dataset, PathLike

# Higher than in `fit_readout`: the readouts must follow a trunk that changes.
_LEARNING_RATE = 1e-2


class SHPCallback(keras.callbacks.Callback):
    """Measures the single-head performance every few epochs and adds it to the logs.

    Each time, the readouts continue to train for a short while, on another sample of the training
    images. Then all heads are measured, always on the same validation images. Both steps use the
    averaged weights if the optimizer keeps them. Training is not affected: no global random number
    is drawn, and no weight of the model changes.

    For every block, with `b` its index, the logs get

    - `shp/block_b_snr`: signal-to-noise ratio;
    - `shp/block_b_clusters_per_head`, `shp/block_b_noise_per_head`: means over heads;
    - `shp/block_b_coverage`: number of heads that have a label on a cluster, mean over labels;
    - `shp/block_b_readout_accuracy`: accuracy of the block's whole readout, in 0 .. 1.

    They are measured in the first epoch of a training, and whenever the epoch, counted from 1, is a
    multiple of `every`. In other epochs they are NaN, so that a table keeps its columns. Put
    callbacks that read them, such as `CSVLogger` or `TensorBoard`, after this one in the list.

    Args:
        train_data: labelled raw images to train the readouts on: a dataset's name, for its "train"
            split, an `ImageDataset`, a pair of arrays, a `keras.utils.PyDataset` or a
            `tf.data.Dataset`. Of the last two only the first images are used. Do not pass the
            pipeline that `fit` trains on: reading it here would change its order there.
        validation_data: likewise, to measure on; of a named dataset the "test" split.
        blocks: list of indices of blocks, or `None` for all that have heads.
        every: int, number of epochs between measurements. Defaults to `1`.
        max_images: int, largest number of images, of each kind, per measurement. Defaults to
            `4000`.
        readout_epochs: int, passes over the training images per measurement. Defaults to `1`.
        threshold: float, normalised responses strictly above it count. Defaults to `0.3`.
        pooling: `"recomputed"` or `"frozen"`; see `lsmha_keras.single_head_performance`.
        output_dir: folder for the results, one `SHPResult` per block and measurement:
            `epoch_003_block_1.npz`, epochs counted from 1. `None` writes nothing.
        data_dir: folder that holds datasets given by name.

    Attributes:
        results: dict from block to the last `SHPResult`; empty before the first measurement.

    Raises:
        ValueError: if an argument is out of range; at the start of training, if a block has no
            heads or the data cannot be opened.

    Example:

    ```python
    shp = lsmha_keras.SHPCallback("cifar100", "cifar100", output_dir="runs/mine/shp")
    model.fit(images, labels, callbacks=[shp, keras.callbacks.CSVLogger("history.csv")])
    ```

    References:
        - [Gross et al., 2025](https://arxiv.org/abs/2506.23832)
    """

    @takes_old_arguments
    def __init__(
        self,
        train_data: Dataset,
        validation_data: Dataset,
        blocks: Sequence[int] | None = None,
        every: int = 1,
        max_images: int = 4000,
        readout_epochs: int = 1,
        threshold: float = 0.3,
        pooling: str = "recomputed",
        output_dir: PathLike | None = None,
        data_dir: PathLike | None = None,
    ) -> None:
        super().__init__()
        counts = {"every": every, "max_images": max_images, "readout_epochs": readout_epochs}
        for name, value in counts.items():
            positive_int(name, value)
        if not 0 <= threshold < 1:
            raise InputError(f"`threshold` must be in [0, 1). Received: threshold={threshold}")
        check_pooling(pooling)
        self.train_data = train_data
        self.validation_data = validation_data
        self.blocks = blocks
        self.every = every
        self.max_images = max_images
        self.readout_epochs = readout_epochs
        self.threshold = threshold
        self.pooling = pooling
        self.output_dir = None if output_dir is None else pathlib.Path(output_dir)
        self.data_dir = data_dir
        self.results: dict[int, Any] = {}

    def __deepcopy__(self, memo):
        """Copies the settings and shares the data; the rest is created for each training."""
        return copy.copy(self)

    def on_train_begin(self, logs: dict[str, Any] | None = None) -> None:
        """Opens the data and makes new readouts."""
        self.results = {}
        num_labels = self.model.output_shape[-1]
        self._trainer = ReadoutTrainer(
            self.model, num_labels, self.blocks, learning_rate=_LEARNING_RATE
        )
        self._fields = HeadFields(self.model, self.blocks, (self.pooling,))
        self._train_data = self._open(self.train_data, "train", num_labels)
        self._validation_data = self._open(self.validation_data, "test", num_labels)
        if self.output_dir is not None:
            self.output_dir.mkdir(parents=True, exist_ok=True)

    def _open(self, dataset, split, num_labels):
        batches = ImageBatches(dataset, 1, self.model, split, self.data_dir)
        # Read a batch now, so that unsuitable data fail before an epoch is spent.
        _, labels = next(batches.epoch())
        class_labels(labels, num_labels)
        return batches.dataset  # opened once, not at every measurement

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Measures, if this epoch is due, and adds the figures to `logs`."""
        is_due = not self.results or (epoch + 1) % self.every == 0
        if is_due:
            with ema_weights(self.model):
                self.results = self._measure(epoch)
            self._save(epoch)
        if logs is not None:
            for block, result in self.results.items():
                for name, value in _figures(result).items():
                    logs[f"shp/block_{block}_{name}"] = value if is_due else math.nan

    def _measure(self, epoch):
        readouts = self._trainer.train(
            self._train_data,
            self.readout_epochs,
            max_images=self.max_images,
            seed=epoch,  # another sample each time: the same one would be memorised
            verbose=0,
        )
        results = self._fields.measure(
            readouts,
            self._validation_data,
            self.threshold,
            max_images=self.max_images,
            verbose=0,
        )
        return results[self.pooling]

    def _save(self, epoch):
        if self.output_dir is not None:
            for block, result in self.results.items():
                result.save(self.output_dir / f"epoch_{epoch + 1:03d}_block_{block}.npz")


def _figures(result):
    return {
        "snr": float(result.snr),
        "clusters_per_head": float(result.statistics.num_clusters.mean()),
        "noise_per_head": result.noise,
        "coverage": float(result.coverage[result.label_counts > 0].mean()),
        "readout_accuracy": result.readout_accuracy,
    }
