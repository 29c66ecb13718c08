"""Trains the readouts of all blocks in one pass over the data."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
from keras import ops

from lsmha_keras.arguments import positive_int
from lsmha_keras.data import AugmentationPolicy, HorizontalFlip, PadCrop
from lsmha_keras.data.labelled import ImageBatches, class_labels
from lsmha_keras.errors import InputError
from lsmha_keras.progress import Progress
from lsmha_keras.shp.head_outputs import HeadOutputs, compile_setting
from lsmha_keras.shp.readouts import BlockReadouts, HeadReadout
from lsmha_keras.types import Dataset, PathLike, Verbose

# Optimizer -> peak learning rate, and its factor in epoch e of `count`.
_SCHEDULES = {
    "adamw": (3e-3, lambda e, count: 0.5 * (1 + np.cos(np.pi * e / count))),
    "sgd": (0.01, lambda e, count: 0.975**e),
}
_BATCH_SIZES = {"adamw": 128, "sgd": 100}
_SGD_DECAY = 1e-3


class ReadoutTrainer(keras.Model):
    """Trains a readout for each block on a frozen trunk, all in one pass over the data per epoch.

    A step runs the trunk once, without gradients, then all readouts. Their losses are summed, so
    each readout trains as it would alone. The step is compiled once, however often `train` is
    called; each call uses the trunk's current weights. No global random state is used or changed.

    Args:
        model: a `CCTImageClassifier`, `CCTBackbone` or another model; see `HeadOutputs`.
        num_labels: int.
        blocks: list of indices of blocks, or `None` for all that have heads.
        optimizer: `"adamw"`, cosine schedule, or `"sgd"`: Nesterov momentum 0.975, weight decay
            1e-3, learning rate times 0.975 each epoch, batches of 100 by default, augmentation.
        learning_rate: float, or `None` for 3e-3 with AdamW, 0.01 with SGD.
        seed: int, of initial weights and shuffling.
        augment: bool, whether images are flipped and shifted, or `None`; see `fit_readout`.

    Raises:
        ValueError: if an argument is out of range.

    Example:

    ```python
    trainer = ReadoutTrainer(classifier, num_labels=100)
    readouts = trainer.train((images, labels), epochs=5)
    readouts = trainer.train((images, labels), epochs=1)  # continues from there
    ```
    """

    def __init__(
        self,
        model,
        num_labels,
        blocks=None,
        optimizer="adamw",
        learning_rate=None,
        seed=0,
        augment=None,
    ):
        super().__init__(name="readout_trainer", dtype="float32")
        if optimizer not in _SCHEDULES:
            raise InputError(
                f"`optimizer` must be one of {', '.join(map(repr, _SCHEDULES))}. "
                f"Received: optimizer={optimizer!r}"
            )
        if isinstance(num_labels, bool) or not isinstance(num_labels, int) or num_labels < 2:
            raise InputError(f"`num_labels` must be at least 2. Received: num_labels={num_labels}")
        self.trunk = HeadOutputs(model, blocks)
        self.num_labels = num_labels
        self.optimizer_name = optimizer
        default = _SCHEDULES[optimizer][0]
        self.peak_learning_rate = default if learning_rate is None else learning_rate
        self.seed = seed
        self.epochs = 0  # in all; `None` if the initial readouts do not say how many they had
        takes_images = len(getattr(model, "image_shape", None) or (0, 0, 0)) == 3
        if augment and not takes_images:
            raise InputError(
                "`augment` flips and shifts images; texts and series are left as they are. "
                f"Received: augment={augment}, a {type(model).__name__}"
            )
        augment = optimizer == "sgd" and takes_images if augment is None else augment
        layers = [PadCrop(4, seed=seed), HorizontalFlip(seed=seed)] if augment else []
        self.augmentation = AugmentationPolicy(layers, seed)
        # Keys are blocks as str: Keras does not track dicts with other keys.
        self.readouts, self.loss_means, self.accuracies = {}, {}, {}

    @property
    def non_trainable_variables(self):
        """With the trunk's variables: on jax, a compiled step takes all variables as arguments."""
        return super().non_trainable_variables + self.trunk.variables

    def call(self, images):
        heads, mask = self.trunk(images), self.trunk.token_mask(images)
        return {name: readout(heads[int(name)], mask) for name, readout in self.readouts.items()}

    def compute_loss(self, x=None, y=None, y_pred=None, sample_weight=None, training=True):
        """Returns the sum of the readouts' losses, and keeps each one's loss and accuracy."""
        total = sum(self.losses)
        for name, logits in y_pred.items():
            losses = ops.sparse_categorical_crossentropy(y, logits, from_logits=True)
            self.loss_means[name].update_state(losses)
            self.accuracies[name].update_state(y, logits)
            total = total + ops.mean(losses)
        return total

    def train(
        self,
        dataset,
        epochs=10,
        validation_data=None,
        batch_size=None,
        initial=None,
        verbose="auto",
        **batch_options,
    ):
        """Trains the readouts, starting from their current weights.

        Args:
            dataset: labelled images of any kind; see `ImageBatches`.
            epochs: int.
            validation_data: like `dataset`, to measure the accuracies on; `None` means those of the
                training images in the last epoch.
            batch_size: int, or `None` for 128 with AdamW, 100 with SGD.
            initial: `BlockReadouts` to start from, or `None`.
            verbose: 0 prints nothing, 1 a bar, 2 lines; "auto" a bar in a terminal, else lines.
            **batch_options: `split`, `data_dir` and `max_images` of `ImageBatches`.

        Returns:
            A `BlockReadouts`.

        Raises:
            ValueError: if the data are invalid, or a block's head outputs are not finite.
        """
        epochs = positive_int("epochs", epochs)
        batch_size = _BATCH_SIZES[self.optimizer_name] if batch_size is None else batch_size
        model = self.trunk.model
        options = {"split": "train", "seed": self.seed, **batch_options}
        batches = ImageBatches(dataset, batch_size, model, **options)
        self._prepare(batches, initial)
        before = self.epochs if initial is None else initial.epochs
        self.epochs = None if before is None else before + epochs
        for epoch in range(epochs):
            factor = _SCHEDULES[self.optimizer_name][1](epoch, epochs)
            self.optimizer.learning_rate = self.peak_learning_rate * factor
            progress = Progress(len(batches), verbose, f"Readouts, epoch {epoch + 1}/{epochs}")
            figures = self._run(self.train_on_batch, batches, epoch, progress)
        if validation_data is not None:
            data_dir = batch_options.get("data_dir")
            validation = ImageBatches(validation_data, batch_size, model, "test", data_dir)
            figures = self._run(self.test_on_batch, validation, None, Progress(0, verbose=0))
        accuracy = {name: figures[f"block_{name}_accuracy"] for name in self.readouts}
        weights = {name: readout.get_weights() for name, readout in self.readouts.items()}
        return BlockReadouts(weights, accuracy, batches.class_names, self.epochs)

    def _prepare(self, batches, initial):
        """Makes the readouts if necessary, sets initial weights, and resets the optimizer."""
        if not self.readouts:
            images, _ = next(batches.epoch())
            self._add_readouts(self.trunk.prepare(images[:1]).shape[1:])
        if initial is not None:
            self._assign(initial)
        for variable in self.optimizer.variables:
            variable.assign(ops.zeros(variable.shape, variable.dtype))

    def _add_readouts(self, image_shape):
        for block, shape in self.trunk.shapes(image_shape).items():
            readout = HeadReadout(self.num_labels, self.seed + block, name=f"block_{block}")
            readout.build(shape)
            self.readouts[str(block)] = readout
            self.loss_means[str(block)] = keras.metrics.Mean(f"block_{block}_loss")
            self.accuracies[str(block)] = keras.metrics.SparseCategoricalAccuracy(
                f"block_{block}_accuracy"
            )
        if self.optimizer_name == "sgd":
            optimizer = keras.optimizers.SGD(momentum=0.975, nesterov=True)
            # As part of the gradient, like the reference; Keras's weight decay bypasses momentum.
            for variable in self.trainable_variables:
                variable.regularizer = keras.regularizers.L2(_SGD_DECAY / 2)
        else:
            optimizer = keras.optimizers.AdamW(weight_decay=1e-4)
        self.built = True
        self.compile(optimizer, jit_compile=compile_setting())
        optimizer.build(self.trainable_variables)

    def _assign(self, initial):
        own = [int(name) for name in self.readouts]
        if initial.blocks != own or initial.num_labels != self.num_labels:
            raise InputError(
                f"`initial` must have readouts for the blocks {own} and {self.num_labels} labels. "
                f"Received: blocks {initial.blocks}, {initial.num_labels} labels"
            )
        for name, readout in self.readouts.items():
            readout.set_weights(initial.weights[int(name)])

    def _run(self, step, batches, shuffle, progress):
        """Runs `step` on every batch; returns the means over images of the metrics."""
        totals, seen = {}, 0
        augmented = list(enumerate(self.augmentation.layers)) if shuffle is not None else []
        for number, (images, labels) in enumerate(batches.epoch(shuffle)):
            labels = class_labels(labels, self.num_labels, seen)
            images, _ = self.augmentation.augment(augmented, images, labels, [shuffle, number])
            figures = step(self.trunk.prepare(images), labels, return_dict=True)
            seen += len(images)
            for name, value in figures.items():
                totals[name] = totals.get(name, 0.0) + float(value) * len(images)
            progress.add(loss=figures["loss"])
        means = {name: total / seen for name, total in totals.items()}
        progress.finish(loss=means["loss"])
        self._check_finite(totals)
        return means

    def _check_finite(self, totals):
        blocks = [int(n) for n in self.readouts if not np.isfinite(totals[f"block_{n}_loss"])]
        if blocks:
            raise InputError(
                "The head outputs must be finite, and so must the readouts' losses. Received: NaN "
                f"or infinity from blocks {blocks}"
            )


def fit_readout(
    model: Any,
    dataset: Dataset,
    blocks: Sequence[int] | None = None,
    validation_data: Dataset | None = None,
    num_labels: int | None = None,
    epochs: int = 10,
    optimizer: Any = "adamw",
    learning_rate: Any = None,
    batch_size: int | None = None,
    initial: BlockReadouts | None = None,
    max_images: int | None = None,
    split: str = "train",
    data_dir: PathLike | None = None,
    seed: int = 0,
    verbose: Verbose = "auto",
    augment: Any = None,
) -> BlockReadouts:
    """Fits a readout for each block of a model; the model itself does not change.

    A readout is a sequence pooling over the concatenated head outputs of a block, before the output
    projection, and a linear layer without bias. All readouts are trained in one pass over the data
    per epoch.

    Args:
        model: a `CCTImageClassifier`, `CCTBackbone`, or any model with the method that
            `lsmha_keras.shp.head_outputs.HeadOutputs` describes.
        dataset: a dataset's name, as `lsmha_keras.open_dataset` takes it, an `ImageDataset`, a pair
            of arrays `(images, labels)`, a `keras.utils.PyDataset` or a `tf.data.Dataset`. Raw
            images; labels are integers or one-hot. Arrays and named datasets are shuffled.
        blocks: list of indices of blocks, counted as in the backbone, or `None` for all that have
            heads.
        validation_data: like `dataset`, to measure the accuracies on; `None` means those of the
            training images in the last epoch.
        num_labels: int, or `None` for the dataset's number of classes, the width of its one-hot
            labels, or the model's `num_classes`, whichever is known first.
        epochs: int. Defaults to `10`.
        optimizer: `"adamw"`, with a cosine schedule, or `"sgd"`: Nesterov momentum 0.975, weight
            decay 1e-3, learning rate times 0.975 each epoch. Defaults to `"adamw"`.
        learning_rate: float, or `None` for 3e-3 with AdamW, 0.01 with SGD.
        batch_size: int, or `None` for 128 with AdamW, 100 with SGD.
        initial: `BlockReadouts` of the same blocks to start from, or `None`.
        max_images: int, or `None` for all; see `ImageBatches`.
        split: str, the split of a dataset given by name. Defaults to `"train"`.
        data_dir: folder that holds a dataset given by name.
        seed: int, of initial weights and shuffling.
        verbose: 0 prints nothing, 1 a bar, 2 lines; "auto" a bar in a terminal, else lines.
        augment: bool, whether to flip images left to right with probability 0.5 and to shift them
            by up to 4 pixels. `None` means with SGD, whose schedule includes it, but not with
            AdamW, and never texts and series.

    Returns:
        A `BlockReadouts`: `.weights`, `.accuracy` by block, `.save(path)`.

    Raises:
        ValueError: if an argument, a block or the data are invalid, the number of labels is
            unknown, or a block's head outputs are not finite.

    Example:

    ```python
    model = lsmha_keras.CCTImageClassifier.from_preset("cct_2_3x2_h16_cifar100")
    readouts = lsmha_keras.fit_readout(model, "cifar100", epochs=5)
    readouts.accuracy  # {0: ..., 1: ...}
    ```

    References:
        - [Gross et al., 2025](https://arxiv.org/abs/2506.23832)
    """
    if num_labels is None:
        num_labels = _find_num_labels(model, dataset, split, data_dir)
    trainer = ReadoutTrainer(model, num_labels, blocks, optimizer, learning_rate, seed, augment)
    return trainer.train(
        dataset,
        epochs,
        validation_data,
        batch_size,
        initial,
        verbose,
        max_images=max_images,
        split=split,
        data_dir=data_dir,
    )


def _find_num_labels(model, dataset, split, data_dir):
    batches = ImageBatches(dataset, 1, model, split, data_dir)
    if batches.class_names is not None:
        return len(batches.class_names)
    _, labels = next(batches.epoch())
    if labels.ndim == 2 and labels.shape[1] > 1:
        return labels.shape[1]
    if num_labels := getattr(model, "num_classes", None):
        return num_labels
    raise InputError(
        "The number of labels is unknown: give `num_labels`. Received: num_labels=None, integer "
        "labels without class names, and a model without `num_classes`"
    )
