"""Augmentation that mixes two images and their labels."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np

from lsmha_keras.arguments import plain, positive_number
from lsmha_keras.data.augmentation.image_augmentation import ImageAugmentation
from lsmha_keras.old_spellings import given


@keras.saving.register_keras_serializable(package="lsmha_keras")
class MixUp(ImageAugmentation):
    """Blends each image, and its label, with another of the batch.

    `image = w * image + (1 - w) * other`, and likewise for the labels. Each image draws its own
    weight `w ~ Beta(alpha, alpha)`. Integer images are rounded.

    Args:
        alpha: positive float.
        seed: see `ImageAugmentation`.
        **kwargs: of `keras.layers.Layer`.

    Call arguments:
        images: dictionary with "images" and one-hot "labels".

    Raises:
        ValueError: if `alpha` is not positive, or from a call without labels.

    Example:
        >>> import numpy as np
        >>> images, labels = np.zeros((4, 8, 8, 3), "uint8"), np.eye(4, dtype="float32")
        >>> batch = {"images": images, "labels": labels}
        >>> tuple(MixUp(0.8, seed=0)(batch)["labels"].shape)
        (4, 4)

    References:
        - [mixup: Beyond Empirical Risk Minimization](https://arxiv.org/abs/1710.09412)
    """

    mixes_labels = True

    def __init__(self, alpha: float = 0.8, seed: int | None = None, **kwargs: Any) -> None:
        positive_number("alpha", alpha)
        super().__init__(seed=seed, **kwargs)
        self.alpha = plain(alpha)

    def augment(self, images, labels, rng):
        partners = rng.permutation(len(images))
        weights = rng.beta(self.alpha, self.alpha, len(images)).astype("float32")
        flat = images.reshape(len(images), -1).astype("float32")
        mixed = blend(flat, weights, partners)
        if not np.issubdtype(images.dtype, np.floating):
            mixed += 0.5  # the cast below truncates
        mixed = mixed.astype(images.dtype).reshape(images.shape)
        return mixed, blend(labels, weights, partners)

    def get_config(self):
        return {**super().get_config(), "alpha": self.alpha}


def blend(rows, weights, partners):
    """Returns `weights * rows + (1 - weights) * rows[partners]`.

    Args:
        rows: `(batch, values)` float.
        weights: `(batch,)` float32.
        partners: `(batch,)` integers.

    Returns:
        Float array of the shape of `rows`.
    """
    mixed = rows[partners]
    # In place: allocating large temporary arrays costs more than the arithmetic.
    mixed *= (1 - weights)[:, None]
    mixed += rows * weights[:, None]
    return mixed


@keras.saving.register_keras_serializable(package="lsmha_keras")
class CutMix(ImageAugmentation):
    """Replaces a box in each image by the same box of another image of the batch.

    The box has the image's aspect ratio, a random centre and, as a fraction of the image, the area
    `1 - w`, where each image draws its own `w ~ Beta(factor, factor)`. It is clipped to the image,
    and the labels are mixed in proportion to the clipped area.

    Args:
        factor: positive float.
        seed: see `ImageAugmentation`.
        **kwargs: of `keras.layers.Layer`.

    Call arguments:
        images: dictionary with "images" and one-hot "labels".

    Raises:
        ValueError: if `factor` is not positive, or from a call without labels.

    Example:
        >>> import numpy as np
        >>> images, labels = np.zeros((4, 8, 8, 3), "uint8"), np.eye(4, dtype="float32")
        >>> batch = {"images": images, "labels": labels}
        >>> tuple(CutMix(1.0, seed=0)(batch)["labels"].shape)
        (4, 4)

    References:
        - [CutMix](https://arxiv.org/abs/1905.04899)
    """

    mixes_labels = True

    def __init__(self, factor: float = 1.0, seed: int | None = None, **kwargs: Any) -> None:
        factor = given("CutMix", "factor", factor, kwargs)
        positive_number("factor", factor)
        super().__init__(seed=seed, **kwargs)
        self.factor = plain(factor)

    def augment(self, images, labels, rng):
        count, height, width, _ = images.shape
        partners = rng.permutation(count)
        side = np.sqrt(1 - rng.beta(self.factor, self.factor, count))
        tops, bottoms = _interval(rng, side, height)
        lefts, rights = _interval(rng, side, width)
        mixed = images.copy()
        boxes = zip(tops, bottoms, lefts, rights, strict=True)
        for row, (top, bottom, left, right) in enumerate(boxes):
            mixed[row, top:bottom, left:right] = images[partners[row], top:bottom, left:right]
        cut = (bottoms - tops) * (rights - lefts) / (height * width)
        return mixed, blend(labels, (1 - cut).astype("float32"), partners)

    def get_config(self):
        return {**super().get_config(), "factor": self.factor}


def _interval(rng, side, size):
    """Draws intervals of length `side * size` about random centres, clipped to 0 .. `size`."""
    length = (side * size).astype("int64")
    start = rng.integers(0, size, len(side)) - length // 2
    return np.maximum(start, 0), np.minimum(start + length, size)
