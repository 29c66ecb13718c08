"""Random erasing."""

import keras
import numpy as np

from lsmha_keras.arguments import plain
from lsmha_keras.data.augmentation.image_augmentation import ImageAugmentation, check_fraction
from lsmha_keras.data.augmentation.resized_crop import check_range, draw_boxes


@keras.saving.register_keras_serializable(package="lsmha_keras")
class RandomErasing(ImageAugmentation):
    """Fills a random box of some of the images with noise, uniform over 0 .. 255 at each pixel.

    (After the usual normalisation this has about mean 0 and standard deviation 1.)

    Args:
        probability: float in 0 .. 1 with which an image is changed.
        area: smallest and largest area of the box as a fraction of the image.
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
        self, probability=0.25, area=(0.02, 1 / 3), aspect_ratio=(0.3, 10 / 3), seed=None, **kwargs
    ):
        check_fraction(probability=probability)
        check_range(area=area, most=1)
        check_range(aspect_ratio=aspect_ratio)
        super().__init__(seed=seed, **kwargs)
        self.probability = plain(probability)
        self.area = plain(list(area))
        self.aspect_ratio = plain(list(aspect_ratio))

    def augment(self, images, labels, rng):
        _, height, width, channels = images.shape
        rows = np.flatnonzero(rng.random(len(images)) < self.probability)
        boxes = draw_boxes(rng, len(rows), height, width, self.area, self.aspect_ratio)
        erased = images.copy()
        for row, (top, left, tall, wide) in zip(rows, boxes.tolist(), strict=True):
            noise = rng.integers(0, 256, (tall, wide, channels), dtype="uint8")
            erased[row, top : top + tall, left : left + wide] = noise
        return erased, labels

    def get_config(self):
        return {
            **super().get_config(),
            "probability": self.probability,
            "area": self.area,
            "aspect_ratio": self.aspect_ratio,
        }
