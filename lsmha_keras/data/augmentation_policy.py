"""Which layers augment a batch, in which order, from which random numbers."""

import itertools

import numpy as np

from lsmha_keras.data.augmentation.image_augmentation import ImageAugmentation
from lsmha_keras.data.recipe_table import layers_from_table

# Layers of other packages that take {"images", "labels"} instead of images.
_MIXING_LAYERS = ("MixUp", "CutMix", "FourierMix", "Mosaic")


class AugmentationPolicy:
    """Layers that are applied to each batch, one after the other.

    The layers of this package get their random numbers from `(seed, epoch, batch)`: they do the
    same in whichever order and in however many threads batches are made. Any other preprocessing
    layer, such as Keras's and KerasCV's, is called on float32 images with `training=True` and draws
    its own random numbers. Layers named MixUp, CutMix, FourierMix or Mosaic, and those with an
    attribute `mixes_labels` that is true, get a dictionary with "images" and one-hot "labels".

    Args:
        layers: list of layers.
        seed: int.

    Raises:
        ValueError: if one of the layers cannot be called.

    Example:
        >>> from lsmha_keras.data import HorizontalFlip, PadCrop
        >>> policy = AugmentationPolicy([PadCrop(4), HorizontalFlip()], seed=1)
        >>> policy.mixes_labels
        False
    """

    def __init__(self, layers, seed=0):
        layers = list(layers)
        for layer in layers:
            if not callable(layer):
                raise ValueError(
                    f"`layers` must hold layers, which can be called. Received: {layer!r}"
                )
        self.layers = layers
        self.seed = seed

    @classmethod
    def from_config(cls, config, image_shape, num_classes, seed=0):
        """Makes the policy that a recipe's `[augmentation]` table describes.

        Args:
            config: dictionary. Keys, all optional: `random_resized_crop` (smallest and largest
                area), `pad_crop` (pixels), `flip` (bool or probability), `rand_augment` (dictionary
                of `RandAugment`'s arguments), `random_erasing` (probability), `mixup` and `cutmix`
                (alpha; with both, each batch gets one of them, with even odds).
            image_shape: `(height, width, channels)`.
            num_classes: int.
            seed: int.

        Returns:
            An `AugmentationPolicy`.

        Raises:
            ValueError: for an unknown key or a bad value.

        Example:
            >>> table = {"pad_crop": 4, "flip": True, "cutmix": 1.0}
            >>> len(AugmentationPolicy.from_config(table, (32, 32, 3), 100).layers)
            3
        """
        return cls(layers_from_table(config, image_shape, num_classes), seed)

    @property
    def mixes_labels(self):
        """Whether a layer mixes labels, which must then be one-hot."""
        return any(mixes_labels(layer) for layer in self.layers)

    @property
    def reproducible(self):
        """Whether all layers are this package's, so that batches may be made in any order."""
        return all(isinstance(layer, ImageAugmentation) for layer in self.layers)

    def runs(self):
        """Groups consecutive layers by who supplies their random numbers.

        Returns:
            A list of pairs: whether the layers are this package's, and the `(position, layer)`
            pairs.
        """
        grouped = itertools.groupby(
            enumerate(self.layers), key=lambda pair: isinstance(pair[1], ImageAugmentation)
        )
        return [(own, list(pairs)) for own, pairs in grouped]

    def augment(self, run, images, labels, key):
        """Applies some of this package's layers.

        Args:
            run: `(position, layer)` pairs, as from `runs`.
            images: `(batch, height, width, channels)` NumPy array.
            labels: `(batch,)` int32, or `(batch, classes)` float32 (one-hot) if `mixes_labels`.
            key: list of non-negative ints that, with the policy's seed, determine what is done.

        Returns:
            The images and labels.
        """
        for position, layer in run:
            rng = np.random.default_rng([self.seed, *key, position])
            images, labels = layer.augment(images, labels, rng)
        return images, labels


def mixes_labels(layer):
    """Returns whether a layer needs one-hot labels beside the images.

    Args:
        layer: any layer.

    Returns:
        A bool.
    """
    if isinstance(layer, ImageAugmentation):
        return layer.mixes_labels
    return getattr(layer, "mixes_labels", False) or type(layer).__name__ in _MIXING_LAYERS
