"""Leaves out the most important heads during training."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
from keras import ops

from lsmha_keras.arguments import positive_int
from lsmha_keras.data.labelled import ImageBatches, class_labels
from lsmha_keras.errors import InputError
from lsmha_keras.heads.explain import check_classifier
from lsmha_keras.heads.interventions import ScaledHeads
from lsmha_keras.layers.transformer_block import TransformerBlock
from lsmha_keras.models.block_walk import prepared
from lsmha_keras.shp.head_outputs import gradient


class MaskImportantHeads(keras.callbacks.Callback):
    """Leaves out the heads that matter most, so that the others learn to do without them.

    Before each epoch the importance of all heads is measured on some images: the mean absolute
    derivative of the cross-entropy by the head's scale. Of all heads of the model the most
    important ones, `head_dropout` of them, are left out in the training steps of that epoch; each
    block keeps one. Evaluation and prediction use all heads. The model is built with
    `head_dropout` above 0 and `head_dropout_by="importance"`.

    The authors measure before every step, on its own batch; an epoch costs one pass more here.

    Args:
        data: labelled images of any kind to measure on, such as the training images; see
            `fit_readout`.
        max_images: int, how many of them. Defaults to `256`.
        scale: bool, whether the others are scaled up, by all heads over those that are left.
            Defaults to `True`.
        batch_size: int. Defaults to `64`.
        seed: int, of the choice of images.

    Attributes:
        left_out: list of pairs of block and head, those of the last epoch.

    Raises:
        ValueError: if a number is out of range, or the model has no such heads.

    Example:

    ```python
    callback = lsmha_keras.MaskImportantHeads((images, labels))
    classifier.fit(images, labels, epochs=10, callbacks=[callback])
    ```

    References:
        - [Sun et al., 2020](https://arxiv.org/abs/2009.09672), heads masked by importance
        - [Michel et al., 2019](https://arxiv.org/abs/1905.10650), the importance
    """

    def __init__(
        self,
        data: Any,
        max_images: int = 256,
        scale: bool = True,
        batch_size: int = 64,
        seed: int = 0,
    ) -> None:
        super().__init__()
        self.data, self.scale, self.seed = data, scale, seed
        self.max_images = positive_int("max_images", max_images)
        self.batch_size = positive_int("batch_size", batch_size)
        self.left_out: list[tuple[int, int]] = []

    def on_train_begin(self, logs: dict[str, Any] | None = None) -> None:
        """Finds the blocks, and opens the data."""
        check_classifier(self.model)
        blocks = enumerate(self.model.backbone.blocks)
        self._blocks = {i: b for i, b in blocks if isinstance(b, TransformerBlock)}
        if not all(hasattr(block, "head_keep") for block in self._blocks.values()):
            raise InputError(
                "Heads are left out by importance where the model is built with "
                "`head_dropout` above 0 and `head_dropout_by='importance'`. Received: a model with "
                f"head_dropout={self.model.backbone.head_dropout}, "
                f"head_dropout_by={self.model.backbone.head_dropout_by!r}"
            )
        self._scorer = _HeadImportance(self.model)
        self._batches = ImageBatches(
            self.data,
            self.batch_size,
            self.model,
            max_images=self.max_images,
            seed=self.seed,
        )

    def on_epoch_begin(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Measures all heads, and leaves out the most important ones."""
        counts = [block.num_heads for block in self._blocks.values()]
        rate = self.model.backbone.head_dropout
        masks = np.split(mask_most(self._measure(), counts, rate), np.cumsum(counts)[:-1])
        factor = sum(counts) / sum(mask.sum() for mask in masks) if self.scale else 1.0
        self.left_out = []
        for (i, block), mask in zip(self._blocks.items(), masks, strict=True):
            self.left_out += [(i, int(head)) for head in np.flatnonzero(mask == 0)]
            block.head_keep.assign(mask * factor)

    def on_train_end(self, logs: dict[str, Any] | None = None) -> None:
        """Puts all heads back."""
        for block in self._blocks.values():
            block.head_keep.assign(np.ones(block.num_heads, "float32"))

    def _measure(self):
        """Returns the importance of all heads, the first block's first, as a sum over images."""
        total, num_images, size = 0.0, 0, 0
        for images, labels in self._batches.epoch():
            labels = class_labels(labels, self.model.num_classes, num_images)
            size = max(size, len(images))
            # The last batch is filled up, which spares a compilation.
            filled = np.arange(size) % len(images)
            inputs = {
                "images": prepared(self.model, images[filled]),
                "labels": labels[filled].astype("int32"),
                "weights": (np.arange(size) < len(images)).astype("float32"),
            }
            total = total + self._scorer.predict_on_batch(inputs)
            num_images += len(images)
        return total


class _HeadImportance(keras.Model):
    """The absolute derivatives of the cross-entropy by the scales of heads, summed over images."""

    def __init__(self, classifier):
        super().__init__(name="head_importance")
        self.scaled = ScaledHeads(classifier)
        activation = keras.activations.get(classifier.activation)
        self.is_linear = activation is keras.activations.linear
        self.num_heads = sum(
            block.num_heads
            for block in classifier.backbone.blocks
            if isinstance(block, TransformerBlock)
        )
        self.built = True

    def call(self, inputs):
        def loss(scales):
            outputs = self.scaled({"images": inputs["images"], "scales": scales})
            return ops.sum(
                ops.sparse_categorical_crossentropy(
                    inputs["labels"], ops.cast(outputs, "float32"), from_logits=self.is_linear
                )
            )

        ones = ops.ones((ops.shape(inputs["images"])[0], self.num_heads))
        # A scale for each image, so the gradient of the sum holds each image's own.
        found = ops.abs(gradient(loss, ones))
        return ops.matmul(inputs["weights"], found)


def mask_most(importance, counts, rate):
    """Marks the most important heads of a model.

    Args:
        importance: float array `(heads of all blocks,)`.
        counts: list of ints, the heads of each block.
        rate: float in [0, 1), share of all heads.

    Returns:
        A float32 array of the same shape: 0 for `round(rate * heads)` of the heads, the most
        important ones, but that one of each block stays; else 1.

    Example:
        >>> mask_most(np.array([3.0, 2.0, 0.0, 1.0]), [2, 2], 0.5)
        array([0., 1., 1., 0.], dtype=float32)
    """
    blocks = np.repeat(np.arange(len(counts)), counts)
    mask, left = np.ones(len(blocks), "float32"), list(counts)
    budget = round(rate * len(blocks))
    for head in np.argsort(-np.asarray(importance), kind="stable"):
        if budget and left[blocks[head]] > 1:
            mask[head] = 0
            budget, left[blocks[head]] = budget - 1, left[blocks[head]] - 1
    return mask
