"""The augmentation layers of a training run: their order and their random numbers."""

from __future__ import annotations

import inspect
import itertools
from collections.abc import Mapping, Sequence
from typing import Any, Self

import keras
import numpy as np

from lsmha_keras.data.augmentation.geometry import (
    HorizontalFlip,
    PadCrop,
    RandomErasing,
    ResizedCrop,
)
from lsmha_keras.data.augmentation.image_augmentation import ImageAugmentation, OneOf
from lsmha_keras.data.augmentation.mixing import CutMix, MixUp
from lsmha_keras.data.augmentation.rand_augment import RandAugmentPerImage
from lsmha_keras.errors import InputError, nearest

# What `true` stands for in a recipe's `[augmentation]`.
DEFAULTS = {"random_resized_crop": (0.08, 1.0), "flip": 0.5, "random_erasing": 0.25}
# Layers of other packages that take {"images", "labels"} instead of images.
_MIXING_LAYERS = ("MixUp", "CutMix", "FourierMix", "Mosaic")


class AugmentationPolicy:
    """Layers that augment each batch, in order.

    The layers of this package draw their random numbers from `(seed, epoch, batch)`, so the result
    depends neither on the order in which batches are made nor on the number of threads. Any other
    preprocessing layer, such as one of Keras or KerasCV, is called on float32 images with
    `training=True` and draws its own random numbers. Layers named MixUp, CutMix, FourierMix or
    Mosaic, and those whose attribute `mixes_labels` is true, get a dictionary with "images" and
    one-hot "labels".

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

    def __init__(self, layers: Sequence[Any], seed: int = 0) -> None:
        layers = list(layers)
        for layer in layers:
            if not callable(layer):
                raise InputError(
                    f"`layers` must hold layers, which can be called. Received: {layer!r}"
                )
        self.layers = layers
        self.seed = seed

    @classmethod
    def from_config(
        cls, config: Mapping[str, Any], image_shape: Sequence[int], num_classes: int, seed: int = 0
    ) -> Self:
        """Makes the policy that a recipe's `[augmentation]` table describes.

        Args:
            config: dictionary. Keys, all optional: `random_resized_crop` (smallest and largest
                area), `pad_crop` (pixels), `flip` (bool or probability), `rand_augment` (dictionary
                of `RandAugmentPerImage`'s arguments), `random_erasing` (probability), `mixup` and
                `cutmix` (parameter of the Beta distribution; with both, each batch gets one or the
                other with equal probability).
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
    def mixes_labels(self) -> bool:
        """Whether a layer mixes labels, which must then be one-hot."""
        return any(mixes_labels(layer) for layer in self.layers)

    @property
    def reproducible(self) -> bool:
        """Whether all layers are this package's, so that batches may be made in any order."""
        return all(isinstance(layer, ImageAugmentation) for layer in self.layers)

    def runs(self) -> list[Any]:
        """Groups consecutive layers by whether they are this package's.

        Returns:
            A list of pairs `(own, run)`: whether the layers are this package's, and a list of
            `(position, layer)`.
        """
        grouped = itertools.groupby(
            enumerate(self.layers), key=lambda pair: isinstance(pair[1], ImageAugmentation)
        )
        return [(own, list(pairs)) for own, pairs in grouped]

    def augment(self, run: Any, images: Any, labels: Any, key: Sequence[int]) -> tuple[Any, Any]:
        """Applies a run of this package's layers.

        Args:
            run: list of `(position, layer)`, as from `runs`.
            images: `(batch, height, width, channels)` NumPy array.
            labels: `(batch,)` int32, or `(batch, classes)` float32 (one-hot) if `mixes_labels`.
            key: list of non-negative ints; with the policy's seed, they seed the random numbers.

        Returns:
            The images and labels.
        """
        for position, layer in run:
            rng = np.random.default_rng([self.seed, *key, position])
            images, labels = layer.augment(images, labels, rng)
        return images, labels


def mixes_labels(layer):
    """Returns whether a layer takes one-hot labels together with the images.

    Args:
        layer: any layer.

    Returns:
        A bool.
    """
    if isinstance(layer, ImageAugmentation):
        return layer.mixes_labels
    return getattr(layer, "mixes_labels", False) or type(layer).__name__ in _MIXING_LAYERS


def _rand_augment(arguments):
    known = ("num_ops", "magnitude", "magnitude_std", "probability", "operations", "fill")
    known = (*known, "interpolation")
    if arguments is True:
        return RandAugmentPerImage()
    if not isinstance(arguments, dict):
        raise InputError(
            f"`rand_augment` must be true or a table with some of {', '.join(known)}. "
            f"Received: rand_augment={arguments!r}"
        )
    for key in arguments:
        if key not in known:
            raise InputError(
                f"Unknown key of `rand_augment`{nearest(key, known)}. Expected some of "
                f"{', '.join(known)}. Received: {key}={arguments[key]!r}"
            )
    return RandAugmentPerImage(**arguments)


def _or_default(key, value):
    return DEFAULTS[key] if value is True else value


# In the order of application. MixUp and CutMix come last and apart: with both, one is chosen.
_MAKERS = {
    "random_resized_crop": lambda area: ResizedCrop(_or_default("random_resized_crop", area)),
    "pad_crop": PadCrop,
    "flip": lambda value: HorizontalFlip(_or_default("flip", value)),
    "rand_augment": _rand_augment,
    "random_erasing": lambda value: RandomErasing(_or_default("random_erasing", value)),
}
_MIXERS = {"mixup": MixUp, "cutmix": CutMix}
KEYS = (*_MAKERS, *_MIXERS)


def layers_from_table(table, image_shape, num_classes):
    """Makes the layers in their order of application; a value of false or 0 leaves one out.

    Args:
        table: see `AugmentationPolicy.from_config`.
        image_shape: `(height, width, channels)`.
        num_classes: int.

    Returns:
        A list of layers.

    Raises:
        ValueError: for an unknown key or a bad value.
    """
    for key in table:
        if key not in KEYS:
            raise InputError(
                f"Unknown augmentation{nearest(key, KEYS)}. Expected some of {', '.join(KEYS)}. "
                f"Received: {key}={table[key]!r}"
            )
    wanted = {key: table[key] for key in KEYS if table.get(key) not in (None, False, 0)}
    _check_fit(wanted, image_shape, num_classes)
    layers = [make(wanted[key]) for key, make in _MAKERS.items() if key in wanted]
    mixers = [make(wanted[key]) for key, make in _MIXERS.items() if key in wanted]
    return layers + ([OneOf(mixers)] if len(mixers) == 2 else mixers)


def _check_fit(wanted, image_shape, num_classes):
    padding = wanted.get("pad_crop", 0)
    if isinstance(padding, int) and padding >= min(image_shape[:2]):
        raise InputError(
            f"`pad_crop` must be smaller than the image's sides, {image_shape[0]}x"
            f"{image_shape[1]}. Received: pad_crop={padding}"
        )
    if num_classes < 2 and any(key in wanted for key in _MIXERS):
        raise InputError(
            f"`mixup` and `cutmix` need at least 2 classes. Received: num_classes={num_classes}"
        )


def call_external_layer(layer, images, labels):
    """Applies a layer of another package, in training mode.

    Args:
        layer: a layer or function that takes images, or {"images", "labels"} if it mixes labels. A
            layer gets float32 images, a function gets them unchanged.
        images: `(batch, height, width, channels)`, NumPy or TensorFlow.
        labels: `(batch,)` int32 or `(batch, classes)` float32.

    Returns:
        Images and labels, as NumPy arrays if the images were one.
    """
    eager = isinstance(images, np.ndarray)
    if isinstance(layer, keras.layers.Layer):
        # Keras's preprocessing layers cast their input inside `tf.data`, but not elsewhere.
        images = _as_float(images)
    if mixes_labels(layer):
        batch = _call(layer, {"images": images, "labels": labels})
        results = batch["images"], batch["labels"]
    else:
        results = _call(layer, images), labels
    return tuple(map(keras.ops.convert_to_numpy, results)) if eager else results


def _as_float(images):
    if isinstance(images, np.ndarray):
        return images.astype("float32")
    import tensorflow as tf

    return tf.cast(images, "float32")


def _call(layer, batch):
    # `Layer.__call__` accepts `training` only where the layer's `call` does.
    if isinstance(layer, keras.layers.Layer):
        known = inspect.signature(layer.call).parameters
    else:
        known = inspect.signature(layer).parameters
    return layer(batch, training=True) if "training" in known else layer(batch)


def scale_augmentation(augmentation, strength):
    """Weakens the augmentation of a recipe.

    The strength multiplies the pixels of `pad_crop`, the magnitude of `rand_augment`, the
    probability of `random_erasing`, the parameters of `mixup` and `cutmix`, and how far
    `random_resized_crop` may zoom in. Flips stay as they are. At 0 there is no augmentation.

    Args:
        augmentation: dict, a recipe's `[augmentation]`.
        strength: float in 0 .. 1; 1 changes nothing.

    Returns:
        A new dict.

    Raises:
        ValueError: if the strength is out of range.

    Example:
        >>> scale_augmentation({"pad_crop": 4, "flip": True, "cutmix": 1.0}, 0.5)
        {'pad_crop': 2, 'flip': True, 'cutmix': 0.5}
    """
    if isinstance(strength, bool) or not 0 <= strength <= 1:
        raise InputError(f"`augmentation_strength` must be in 0 .. 1. Received: {strength!r}")
    if strength == 0:
        return {}
    scaled = {key: _scale(key, value, strength) for key, value in augmentation.items()}
    return {key: value for key, value in scaled.items() if value not in (0, None)}


def _scale(key, value, strength):
    if strength == 1 or key == "flip" or value is False:
        return value
    if value is True:
        value = {} if key == "rand_augment" else DEFAULTS[key]
    if key == "pad_crop":
        return round(value * strength)
    if key == "random_resized_crop":
        low, high = value
        return [high - (high - low) * strength, high]
    if key == "rand_augment":
        return {**value, "magnitude": RandAugmentPerImage(**value).magnitude * strength}
    return value * strength  # a probability, or an alpha
