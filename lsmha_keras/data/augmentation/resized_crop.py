"""Random crop of random size, resized to the whole."""

import keras
import numpy as np

from lsmha_keras.arguments import plain
from lsmha_keras.data.augmentation.image_augmentation import ImageAugmentation

_TRIES = 10


@keras.saving.register_keras_serializable(package="lsmha_keras")
class ResizedCrop(ImageAugmentation):
    """Cuts a random box out of each image and enlarges it, bilinearly, to the image's size.

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

    def __init__(self, area=(0.8, 1.0), aspect_ratio=(3 / 4, 4 / 3), seed=None, **kwargs):
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
        count: number of boxes.
        height: int, of the image.
        width: int, of the image.
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
    # The first try that fits; when none does, what is inside the image of the last one.
    chosen = np.where(fits.any(axis=0), fits.argmax(axis=0), _TRIES - 1), np.arange(count)
    tall, wide = np.clip(tall[chosen], 1, height), np.clip(wide[chosen], 1, width)
    top = rng.integers(0, height - tall + 1)
    left = rng.integers(0, width - wide + 1)
    return np.stack([top, left, tall, wide], axis=1)


def crop_and_enlarge(images, boxes):
    """Resizes a box of each image to the image's size, as Pillow's crop and bilinear resize.

    Args:
        images: `(images, height, width, channels)` with values in 0 .. 255.
        boxes: `(images, 4)` integers: top, left, height, width.

    Returns:
        Images of the same shape and type; those of whole-number type within one grey level of
        Pillow's.
    """
    count, height, width, channels = images.shape
    # Channels apart and columns innermost, so that the loops below run over whole rows.
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
        pixels += 0.5  # rounds, as the cast below cuts off
    pixels = pixels.reshape(count, height, channels, width).transpose(0, 1, 3, 2)
    return np.ascontiguousarray(pixels, dtype=images.dtype)


def check_range(most=None, **ranges):
    """Raises ValueError unless each value is an increasing pair of positive numbers.

    Args:
        most: largest value allowed, or None.
        **ranges: the pairs under the names that the message gives them.

    Raises:
        ValueError: if one is something else.
    """
    for name, pair in ranges.items():
        sound = isinstance(pair, (list, tuple)) and len(pair) == 2
        if not sound or not 0 < pair[0] <= pair[1] <= (most or np.inf):
            raise ValueError(
                f"`{name}` must be a pair of positive numbers, the smaller one first"
                f"{f', of at most {most}' if most else ''}. Received: {name}={pair!r}"
            )


def _sources(start, length, size):
    """For each new pixel of `size`: the two old ones, and the second one's share."""
    position = (np.arange(size) + 0.5) * (length / size)[:, None] - 0.5
    position = np.clip(position, 0, (length - 1)[:, None])
    first = np.floor(position).astype("int64")
    second = np.minimum(first + 1, (length - 1)[:, None])
    return first + start[:, None], second + start[:, None], (position - first).astype("float32")
