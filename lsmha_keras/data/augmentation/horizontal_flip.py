"""Random mirroring."""

import keras
import numpy as np

from lsmha_keras.arguments import plain
from lsmha_keras.data.augmentation.image_augmentation import ImageAugmentation, check_fraction


@keras.saving.register_keras_serializable(package="lsmha_keras")
class HorizontalFlip(ImageAugmentation):
    """Mirrors each image left to right with a given probability.

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

    def __init__(self, probability=0.5, seed=None, **kwargs):
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
