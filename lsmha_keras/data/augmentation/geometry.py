"""Augmentation that flips, crops or erases."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras
import numpy as np

from lsmha_keras.arguments import plain, whole_number
from lsmha_keras.data.augmentation.image_augmentation import ImageAugmentation, check_fraction
from lsmha_keras.errors import InputError
from lsmha_keras.old_spellings import given

# Boxes drawn per image; the first that fits is used. Ten, as in torchvision and timm.
_TRIES = 10


@keras.saving.register_keras_serializable(package="lsmha_keras")
class HorizontalFlip(ImageAugmentation):
    """Flips each image left to right with a given probability.

    Args:
        probability: float in 0 .. 1.
        seed: see `ImageAugmentation`.
        **kwargs: of `keras.layers.Layer`.

    Raises:
        ValueError: if `probability` lies outside 0 .. 1.

    Example:
        >>> import numpy as np
        >>> images = np.arange(3, dtype="uint8").reshape(1, 1, 3, 1)
        >>> np.ravel(HorizontalFlip(1.0)(images)).tolist()
        [2, 1, 0]
    """

    def __init__(self, probability: float = 0.5, seed: int | None = None, **kwargs: Any) -> None:
        check_fraction(probability=probability)
        super().__init__(seed=seed, **kwargs)
        self.probability = plain(probability)

    def augment(self, images, labels, rng):
        flip = rng.random(len(images)) < self.probability
        flipped = images.copy()
        mirrored = np.arange(images.shape[2] - 1, -1, -1)
        flipped[flip] = images[flip].take(mirrored, axis=2)
        return flipped, labels

    def get_config(self):
        return {**super().get_config(), "probability": self.probability}


@keras.saving.register_keras_serializable(package="lsmha_keras")
class PadCrop(ImageAugmentation):
    """Pads every side with black and crops back to the original size, at random for each image.

    Args:
        padding: int, width of the border in pixels.
        seed: see `ImageAugmentation`.
        **kwargs: of `keras.layers.Layer`.

    Raises:
        ValueError: if `padding` is not a non-negative int.

    Example:
        >>> import numpy as np
        >>> images = np.full((2, 32, 32, 3), 255, dtype="uint8")
        >>> tuple(PadCrop(4, seed=0)(images).shape)
        (2, 32, 32, 3)
    """

    def __init__(self, padding: int = 4, seed: int | None = None, **kwargs: Any) -> None:
        padding = whole_number("padding", padding, 0)  # pixels
        super().__init__(seed=seed, **kwargs)
        self.padding = padding

    def augment(self, images, labels, rng):
        tops, lefts = rng.integers(0, 2 * self.padding + 1, (2, len(images)))
        return crop_padded(images, tops, lefts, self.padding), labels

    def get_config(self):
        return {**super().get_config(), "padding": self.padding}


def crop_padded(images, tops, lefts, padding):
    """Pads images with black and crops each back to its size.

    Args:
        images: `(batch, height, width, channels)`.
        tops: `(batch,)` integers in `0 .. 2 * padding`, the crops' first rows.
        lefts: the same for the columns.
        padding: int, pixels on each side.

    Returns:
        `(batch, height, width, channels)`; `tops = lefts = padding` returns the images unchanged.
    """
    count, height, width, channels = images.shape
    padded = np.zeros(
        (count, height + 2 * padding, width + 2 * padding, channels), dtype=images.dtype
    )
    padded[:, padding : padding + height, padding : padding + width] = images
    # Pixels and channels share an axis, so that each row of a window is one copy.
    lines = padded.reshape(count, height + 2 * padding, -1)
    windows = np.lib.stride_tricks.sliding_window_view(
        lines, (height, width * channels), axis=(1, 2)
    )
    return windows[np.arange(count), tops, lefts * channels].reshape(images.shape)


@keras.saving.register_keras_serializable(package="lsmha_keras")
class ResizedCrop(ImageAugmentation):
    """Crops a random box from each image and resizes it, bilinearly, to the original size.

    Args:
        area: smallest and largest area of the box as a fraction of the image.
        aspect_ratio: smallest and largest width / height of the box.
        seed: see `ImageAugmentation`.
        **kwargs: of `keras.layers.Layer`.

    Raises:
        ValueError: if a range is not an increasing pair of positive numbers, or `area` exceeds 1.

    Example:
        >>> import numpy as np
        >>> images = np.full((2, 32, 32, 3), 7, dtype="uint8")
        >>> np.unique(ResizedCrop(seed=0)(images)).tolist()
        [7]
    """

    def __init__(
        self,
        area: Sequence[float] = (0.8, 1.0),
        aspect_ratio: Sequence[float] = (3 / 4, 4 / 3),
        seed: int | None = None,
        **kwargs: Any,
    ) -> None:
        check_range(area=area, most=1)
        check_range(aspect_ratio=aspect_ratio)
        super().__init__(seed=seed, **kwargs)
        self.area = plain(list(area))
        self.aspect_ratio = plain(list(aspect_ratio))

    def augment(self, images, labels, rng):
        count, height, width, _ = images.shape
        boxes = draw_boxes(rng, count, height, width, self.area, self.aspect_ratio)
        return crop_and_enlarge(images, boxes), labels

    def get_config(self):
        return {**super().get_config(), "area": self.area, "aspect_ratio": self.aspect_ratio}


def draw_boxes(rng, count, height, width, area, aspect_ratio):
    """Draws boxes inside the image, with uniform area and log-uniform aspect ratio.

    Args:
        rng: `numpy.random.Generator`.
        count: int, number of boxes.
        height: int, of the image in pixels.
        width: int, of the image in pixels.
        area: smallest and largest area as a fraction of the image.
        aspect_ratio: smallest and largest width / height.

    Returns:
        `(count, 4)` integers: top, left, height, width.
    """
    areas = rng.uniform(*area, (_TRIES, count)) * (height * width)
    ratios = np.exp(rng.uniform(*np.log(aspect_ratio), (_TRIES, count)))
    tall = np.rint(np.sqrt(areas / ratios)).astype("int64")
    wide = np.rint(np.sqrt(areas * ratios)).astype("int64")
    fits = (tall >= 1) & (tall <= height) & (wide >= 1) & (wide <= width)
    # The first draw that fits; if none does, the last one, clipped to the image.
    chosen = np.where(fits.any(axis=0), fits.argmax(axis=0), _TRIES - 1), np.arange(count)
    tall, wide = np.clip(tall[chosen], 1, height), np.clip(wide[chosen], 1, width)
    top = rng.integers(0, height - tall + 1)
    left = rng.integers(0, width - wide + 1)
    return np.stack([top, left, tall, wide], axis=1)


def crop_and_enlarge(images, boxes):
    """Crops a box from each image and resizes it to the image's size, bilinearly.

    Args:
        images: `(images, height, width, channels)` with values in 0 .. 255.
        boxes: `(images, 4)` integers: top, left, height, width.

    Returns:
        Images of the same shape and type; of an integer type, within one grey level of Pillow's.
    """
    count, height, width, channels = images.shape
    # With columns innermost, NumPy's inner loops run over whole rows.
    planes = np.ascontiguousarray(images.transpose(0, 1, 3, 2), dtype="float32")
    upper, lower, share = _sources(boxes[:, 0], boxes[:, 2], height)
    image = np.arange(count)[:, None]
    lines = planes[image, lower]
    above = planes[image, upper]
    lines -= above
    lines *= share[:, :, None, None]
    lines += above
    left, right, share = _sources(boxes[:, 1], boxes[:, 3], width)
    mixing = np.zeros((count, width, width), dtype="float32")
    column = np.arange(width)
    mixing[image, left, column] = 1 - share
    mixing[image, right, column] += share
    pixels = lines.reshape(count, height * channels, width) @ mixing
    if not np.issubdtype(images.dtype, np.floating):
        pixels += 0.5  # the cast below truncates
    pixels = pixels.reshape(count, height, channels, width).transpose(0, 1, 3, 2)
    return np.ascontiguousarray(pixels, dtype=images.dtype)


def check_range(most=None, **ranges):
    """Raises ValueError unless each value is an increasing pair of positive numbers.

    Args:
        most: largest value allowed, or None.
        **ranges: the pairs, by the names to give them in the message.

    Raises:
        ValueError: if one is not; names it.
    """
    for name, pair in ranges.items():
        sound = isinstance(pair, (list, tuple)) and len(pair) == 2
        if not sound or not 0 < pair[0] <= pair[1] <= (most or np.inf):
            raise InputError(
                f"`{name}` must be a pair of positive numbers, the smaller one first"
                f"{f', of at most {most}' if most else ''}. Received: {name}={pair!r}"
            )


def _sources(start, length, size):
    """Returns, for each new pixel, the two old ones and the weight of the second."""
    position = (np.arange(size) + 0.5) * (length / size)[:, None] - 0.5
    position = np.clip(position, 0, (length - 1)[:, None])
    first = np.floor(position).astype("int64")
    second = np.minimum(first + 1, (length - 1)[:, None])
    return first + start[:, None], second + start[:, None], (position - first).astype("float32")


@keras.saving.register_keras_serializable(package="lsmha_keras")
class RandomErasing(ImageAugmentation):
    """Fills a random box in some of the images with noise, uniform over 0 .. 255 at each pixel.

    (After the usual normalisation, its mean is about 0 and its standard deviation about 1.)

    Args:
        factor: float in 0 .. 1, probability that an image is changed.
        scale: smallest and largest area of the box as a fraction of the image.
        aspect_ratio: smallest and largest width / height of the box.
        seed: see `ImageAugmentation`.
        **kwargs: of `keras.layers.Layer`.

    Raises:
        ValueError: for a value out of range.

    Example:
        >>> import numpy as np
        >>> images = np.zeros((1, 32, 32, 3), dtype="uint8")
        >>> np.unique(RandomErasing(1.0, seed=0)(images)).size > 1
        True

    References:
        - [Random Erasing Data Augmentation](https://arxiv.org/abs/1708.04896)
    """

    def __init__(
        self,
        factor: float = 0.25,
        scale: Sequence[float] = (0.02, 1 / 3),
        aspect_ratio: Sequence[float] = (0.3, 10 / 3),
        seed: int | None = None,
        **kwargs: Any,
    ) -> None:
        factor = given("RandomErasing", "factor", factor, kwargs)
        scale = given("RandomErasing", "scale", scale, kwargs)
        check_fraction(factor=factor)
        check_range(scale=scale, most=1)
        check_range(aspect_ratio=aspect_ratio)
        super().__init__(seed=seed, **kwargs)
        self.factor = plain(factor)
        self.scale = plain(list(scale))
        self.aspect_ratio = plain(list(aspect_ratio))

    def augment(self, images, labels, rng):
        _, height, width, channels = images.shape
        rows = np.flatnonzero(rng.random(len(images)) < self.factor)
        boxes = draw_boxes(rng, len(rows), height, width, self.scale, self.aspect_ratio)
        erased = images.copy()
        for row, (top, left, tall, wide) in zip(rows, boxes.tolist(), strict=True):
            noise = rng.integers(0, 256, (tall, wide, channels), dtype="uint8")
            erased[row, top : top + tall, left : left + wide] = noise
        return erased, labels

    def get_config(self):
        return {
            **super().get_config(),
            "factor": self.factor,
            "scale": self.scale,
            "aspect_ratio": self.aspect_ratio,
        }
