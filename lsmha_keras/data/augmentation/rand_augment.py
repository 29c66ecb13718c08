"""RandAugment with operations drawn for each image.

Keras's `RandAugment` draws one operation for a whole batch, and timm's works on one Pillow image at
a time. This one is vectorised over a batch and gives Pillow's results.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import keras
import numpy as np

from lsmha_keras.arguments import plain, positive_int
from lsmha_keras.data.augmentation import affine, colors
from lsmha_keras.data.augmentation.image_augmentation import ImageAugmentation, check_fraction
from lsmha_keras.errors import InputError, nearest

_MAX = 10.0  # of the scale of magnitudes


def _nothing(level, xp=np):
    return 0.0 * level


def _factor(change, xp=np):
    return xp.maximum(0.1, 1 + 0.9 * change)


# Name: (function, argument from the level in 0 .. 1, whether the sign of the effect is random).
# The arguments are computed by NumPy, or on a device by the `keras.ops` that is passed as `xp`.
_TABLES = {
    "AutoContrast": (colors.auto_contrast, _nothing, False),
    "Equalize": (colors.equalize, _nothing, False),
    "Invert": (colors.invert, _nothing, False),
    "Posterize": (
        colors.posterize,
        lambda level, xp=np: xp.maximum(1, 4 - xp.floor(level * 4)),
        False,
    ),
    "Solarize": (colors.solarize, lambda level, xp=np: 256 - xp.floor(level * 256), False),
    "SolarizeAdd": (colors.solarize_add, lambda level, xp=np: xp.floor(level * 110), False),
    "Contrast": (colors.contrast, _factor, True),
    "Brightness": (colors.brightness, _factor, True),
}
_BLENDS = {
    "Color": (colors.color, _factor, True),
    "Sharpness": (colors.sharpness, _factor, True),
}
_AFFINE = {
    "Rotate": (affine.rotate, lambda change, xp=np: 30 * change, True),
    "ShearX": (affine.shear_x, lambda change, xp=np: 0.3 * change, True),
    "ShearY": (affine.shear_y, lambda change, xp=np: 0.3 * change, True),
    "TranslateX": (affine.translate_x, lambda change, xp=np: 0.45 * change, True),
    "TranslateY": (affine.translate_y, lambda change, xp=np: 0.45 * change, True),
}
OPERATIONS = {**_TABLES, **_BLENDS, **_AFFINE}


@keras.saving.register_keras_serializable(package="lsmha_keras")
class RandAugmentPerImage(ImageAugmentation):
    """Applies a sequence of random operations, drawn for each image.

    The operations are AutoContrast, Equalize, Invert, Rotate, Posterize, Solarize, SolarizeAdd,
    Color, Contrast, Brightness, Sharpness, ShearX, ShearY, TranslateX and TranslateY. A larger
    magnitude makes each of them stronger, as in timm's `rand-m9-mstd0.5-inc1`. For speed, the
    images of a batch are grouped by operation: those on colours become lookup tables, geometric
    ones affine matrices. Results equal Pillow's, to one grey level with bilinear interpolation.

    Args:
        num_ops: int, number of operations in the sequence.
        magnitude: float in 0 .. 10. At 10, rotation is by 30 degrees, shear by 0.3, translation by
            0.45 of the side, and enhancement by a factor of 1 +- 0.9; smaller magnitudes are in
            proportion.
        magnitude_std: float, standard deviation of normal noise added to each magnitude.
        probability: float in 0 .. 1, probability that an operation is applied.
        operations: list of names, or None for all.
        fill: int or one int per channel, grey level of points from outside the image.
        interpolation: "nearest" or "bilinear".
        seed: see `ImageAugmentation`.
        **kwargs: of `keras.layers.Layer`.

    Call arguments:
        images: `(batch, height, width, channels)` with 1 or 3 channels. Types other than uint8 are
            rounded to whole grey levels.

    Raises:
        ValueError: for a value out of range or an unknown operation.

    Example:
        >>> import numpy as np
        >>> images = np.full((2, 4, 4, 3), 10, dtype="uint8")
        >>> layer = RandAugmentPerImage(1, probability=1.0, operations=["Invert"])
        >>> np.unique(layer(images)).tolist()
        [245]

    References:
        - [RandAugment](https://arxiv.org/abs/1909.13719)
    """

    def __init__(
        self,
        num_ops: int = 2,
        magnitude: float = 9,
        magnitude_std: float = 0.5,
        probability: float = 0.5,
        operations: Sequence[str] | None = None,
        fill: int | Sequence[int] = 128,
        interpolation: Literal["nearest", "bilinear"] = "bilinear",
        seed: int | None = None,
        **kwargs: Any,
    ) -> None:
        check_fraction(probability=probability)
        _check_arguments(num_ops, magnitude, magnitude_std, operations, fill, interpolation)
        super().__init__(seed=seed, **kwargs)
        self.num_ops = plain(num_ops)
        self.magnitude = plain(magnitude)
        self.magnitude_std = plain(magnitude_std)
        self.probability = plain(probability)
        self.operations = plain(operations)
        self.fill = plain(fill)
        self.interpolation = interpolation

    def augment(self, images, labels, rng):
        if images.shape[-1] not in (1, 3):
            raise InputError(
                "`images` must have 1 or 3 channels for their colours to be changed. "
                f"Received: shape={images.shape}"
            )
        result = images.copy() if images.dtype == np.uint8 else np.rint(images).astype("uint8")
        names = self.operations or list(OPERATIONS)
        for _ in range(self.num_ops):
            self._apply_one_each(result, names, rng)
        return result.astype(images.dtype, copy=False), labels

    def get_config(self):
        return {
            **super().get_config(),
            "num_ops": self.num_ops,
            "magnitude": self.magnitude,
            "magnitude_std": self.magnitude_std,
            "probability": self.probability,
            "operations": self.operations,
            "fill": self.fill,
            "interpolation": self.interpolation,
        }

    def _apply_one_each(self, images, names, rng):
        """Applies one operation to each image, in place."""
        count = len(images)
        choice = rng.integers(len(names), size=count)
        choice[rng.random(count) >= self.probability] = -1
        level = self.magnitude + self.magnitude_std * rng.standard_normal(count)
        level = np.clip(level, 0, _MAX) / _MAX
        signs = rng.choice([-1.0, 1.0], count)
        rows = {name: np.flatnonzero(choice == index) for index, name in enumerate(names)}
        rows = {name: found for name, found in rows.items() if len(found)}
        arguments = {name: _argument(name, level[at], signs[at]) for name, at in rows.items()}
        apply_operations(images, rows, arguments, self.fill, self.interpolation)


def apply_operations(images, rows, arguments, fill=128, interpolation="bilinear"):
    """Applies operations to some of the images, in place.

    Args:
        images: `(images, height, width, channels)` uint8.
        rows: dict from names of `OPERATIONS` to the indices of the images that get them. An image
            gets at most one.
        arguments: dict from the same names to Pillow's argument for each of these images: bits,
            threshold, addition, factor, degrees, shear, or the translation as a fraction of the
            side. Operations without an argument ignore it.
        fill: see `RandAugmentPerImage`.
        interpolation: see `RandAugmentPerImage`.
    """
    _, height, width, channels = images.shape
    tables, matrices = [], []
    for name, at in rows.items():
        function = OPERATIONS[name][0]
        if name in _BLENDS:
            images[at] = function(images[at], arguments[name])
        elif name in _TABLES:
            table = function(images[at], arguments[name])
            tables.append((at, np.broadcast_to(table, (len(at), channels, 256))))
        else:
            matrices.append((at, function(arguments[name], height, width)))
    if tables:
        at, table = (np.concatenate(parts) for parts in zip(*tables, strict=True))
        images[at] = colors.look_up(images[at], table)
    if matrices:
        at, matrix = (np.concatenate(parts) for parts in zip(*matrices, strict=True))
        images[at] = affine.transform(images[at], matrix, fill, interpolation)


def _argument(name, level, signs):
    _, argument, signed = OPERATIONS[name]
    return argument(level * signs if signed else level)


def _check_arguments(num_ops, magnitude, magnitude_std, operations, fill, interpolation):
    positive_int("num_ops", num_ops)
    if not 0 <= magnitude <= _MAX:
        raise InputError(f"`magnitude` must be in 0 .. 10. Received: magnitude={magnitude!r}")
    if not magnitude_std >= 0:
        raise InputError(
            f"`magnitude_std` must not be negative. Received: magnitude_std={magnitude_std!r}"
        )
    for name in operations or ():
        if name not in OPERATIONS:
            raise InputError(
                f"Unknown operation{nearest(name, OPERATIONS)}. Expected some of "
                f"{', '.join(OPERATIONS)}. Received: operations={operations!r}"
            )
    if operations is not None and not operations:
        raise InputError(f"`operations` must not be empty. Received: operations={operations!r}")
    if np.min(fill) < 0 or np.max(fill) > 255:
        raise InputError(f"`fill` must be in 0 .. 255. Received: fill={fill!r}")
    if interpolation not in affine.INTERPOLATIONS:
        raise InputError(
            f"`interpolation` must be one of {', '.join(affine.INTERPOLATIONS)}. "
            f"Received: interpolation={interpolation!r}"
        )
