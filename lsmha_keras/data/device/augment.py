"""Applies a policy's layers to a batch on the device."""

import numpy as np
from keras import ops, random

from lsmha_keras.data.augmentation.geometry import (
    HorizontalFlip,
    PadCrop,
    RandomErasing,
    ResizedCrop,
)
from lsmha_keras.data.augmentation.image_augmentation import OneOf
from lsmha_keras.data.augmentation.mixing import CutMix, MixUp
from lsmha_keras.data.augmentation.rand_augment import OPERATIONS, RandAugmentPerImage
from lsmha_keras.data.device import colors, geometry, mixing
from lsmha_keras.errors import InputError

_TRIES = 10
_GEOMETRIC = ("Rotate", "ShearX", "ShearY", "TranslateX", "TranslateY")


def augment(layers, images, labels, seeds):
    """Applies layers of this package to a batch, entirely on the device.

    Does what the layers' `augment` does in NumPy, with the same distributions. For equal draws the
    images are equal, to one grey level where they are interpolated or blended.

    Args:
        layers: list of this package's layers, such as `AugmentationPolicy.layers`.
        images: `(batch, height, width, channels)` tensor of grey levels, uint8 or int32.
        labels: `(batch, classes)` float32 tensor.
        seeds: iterator over seeds for `keras.random`; on JAX they are keys, which can be traced.

    Returns:
        int32 images of the same shape, and `(batch, classes)` float32 labels.

    Raises:
        ValueError: if a layer is not one of this package's.

    Example:

    ```python
    images, labels = augment(policy.layers, images, labels, itertools.count())
    ```
    """
    images = ops.cast(images, "int32")
    for layer in layers:
        if type(layer) not in _APPLY:
            raise InputError(
                f"Only {', '.join(kind.__name__ for kind in _APPLY)} run on the device; set "
                f'data.placement = "host" for other layers. Received: {type(layer).__name__}'
            )
        images, labels = _APPLY[type(layer)](layer, images, labels, seeds)
    return images, labels


def apply_operations(images, chosen, arguments, fill, interpolation):
    """Applies RandAugment's operations, at most one to each image.

    Args:
        images: `(batch, height, width, channels)` int32 with 1 or 3 channels.
        chosen: dict from names of `OPERATIONS` to `(batch,)` bool, whether an image gets the
            operation.
        arguments: dict from the same names to `(batch,)` float32, as for
            `augmentation.rand_augment.apply_operations`.
        fill: see `RandAugmentPerImage`.
        interpolation: see `RandAugmentPerImage`.

    Returns:
        int32 images.
    """
    count, height, width, channels = images.shape
    result = images
    for name in (name for name in colors.BLENDS if name in chosen):
        blended = colors.BLENDS[name](images, arguments[name])
        result = ops.where(chosen[name][:, None, None, None], blended, result)
    if by_table := [name for name in colors.TABLES if name in chosen]:
        tables = ops.broadcast_to(colors.levels(), (count, channels, 256))
        for name in by_table:
            table = colors.TABLES[name](images, arguments[name])
            tables = ops.where(chosen[name][:, None, None], table, tables)
        result = colors.look_up(result, tables)
    geometric = {name: chosen[name] for name in _GEOMETRIC if name in chosen}
    if not geometric:
        return result
    matrices = geometry.affine_matrices(geometric, arguments, height, width)
    return geometry.transform(result, matrices, fill, interpolation)


def _pad_crop(layer, images, labels, seeds):
    tops, lefts = (
        random.randint(images.shape[:1], 0, 2 * layer.padding + 1, seed=next(seeds))
        for _ in range(2)
    )
    return geometry.crop_padded(images, tops, lefts, layer.padding), labels


def _flip(layer, images, labels, seeds):
    chosen = _with_probability(layer.probability, len(images), seeds)
    return geometry.mirror(images, chosen), labels


def _resized_crop(layer, images, labels, seeds):
    boxes = _draw_boxes(images.shape, layer.area, layer.aspect_ratio, seeds)
    return geometry.crop_and_enlarge(images, boxes), labels


def _random_erasing(layer, images, labels, seeds):
    chosen = _with_probability(layer.factor, len(images), seeds)
    boxes = _draw_boxes(images.shape, layer.scale, layer.aspect_ratio, seeds)
    noise = random.randint(images.shape, 0, 256, seed=next(seeds))
    return mixing.erase(images, boxes, chosen, noise), labels


def _rand_augment(layer, images, labels, seeds):
    count, names = len(images), layer.operations or list(OPERATIONS)
    for _ in range(layer.num_ops):
        choice = random.randint((count,), 0, len(names), seed=next(seeds))
        applied = _with_probability(layer.probability, count, seeds)
        noise = random.normal((count,), seed=next(seeds))
        level = ops.clip(layer.magnitude + layer.magnitude_std * noise, 0, 10) / 10
        change = ops.where(_with_probability(0.5, count, seeds), level, -level)
        chosen, arguments = {}, {}
        for index, name in enumerate(names):
            _, argument, signed = OPERATIONS[name]
            chosen[name] = (choice == index) & applied
            arguments[name] = argument(change if signed else level, ops)
        images = apply_operations(images, chosen, arguments, layer.fill, layer.interpolation)
    return images, labels


def _mix_up(layer, images, labels, seeds):
    partners, weights = _draw_pairs(layer.alpha, len(images), seeds)
    return mixing.mix_up(images, labels, partners, weights)


def _cut_mix(layer, images, labels, seeds):
    partners, weights = _draw_pairs(layer.factor, len(images), seeds)
    side = ops.sqrt(1 - weights)
    rows, columns = (_interval(side, size, seeds) for size in images.shape[1:3])
    return mixing.cut_mix(images, labels, partners, rows, columns)


def _one_of(layer, images, labels, seeds):
    choice = random.randint((), 0, len(layer.layers), seed=next(seeds))
    result = images, labels
    for index, inner in enumerate(layer.layers):
        augmented = augment([inner], images, labels, seeds)
        result = [
            ops.where(choice == index, new, old) for new, old in zip(augmented, result, strict=True)
        ]
    return result


_APPLY = {
    PadCrop: _pad_crop,
    ResizedCrop: _resized_crop,
    HorizontalFlip: _flip,
    RandAugmentPerImage: _rand_augment,
    RandomErasing: _random_erasing,
    MixUp: _mix_up,
    CutMix: _cut_mix,
    OneOf: _one_of,
}


def _with_probability(probability, count, seeds):
    return random.uniform((count,), seed=next(seeds)) < probability


def _draw_boxes(shape, area, aspect_ratio, seeds):
    """Draws boxes from the distribution of `augmentation.geometry.draw_boxes`."""
    count, height, width, _ = shape
    draws = (_TRIES, count)
    areas = random.uniform(draws, *area, seed=next(seeds)) * (height * width)
    ratios = ops.exp(random.uniform(draws, *np.log(aspect_ratio), seed=next(seeds)))
    tall = ops.cast(ops.round(ops.sqrt(areas / ratios)), "int32")
    wide = ops.cast(ops.round(ops.sqrt(areas * ratios)), "int32")
    fits = (tall >= 1) & (tall <= height) & (wide >= 1) & (wide <= width)
    # The first draw that fits; if none does, the last one, clipped to the image.
    first = ops.argmax(ops.cast(fits, "int32"), axis=0)
    chosen = ops.where(ops.any(fits, axis=0), first, _TRIES - 1)[None]
    tall = ops.clip(ops.take_along_axis(tall, chosen, axis=0)[0], 1, height)
    wide = ops.clip(ops.take_along_axis(wide, chosen, axis=0)[0], 1, width)
    top = _below(height - tall + 1, seeds)
    left = _below(width - wide + 1, seeds)
    return ops.stack([top, left, tall, wide], axis=1)


def _below(limits, seeds):
    """Draws an integer in `0 .. limit - 1` for each limit."""
    share = random.uniform(limits.shape, seed=next(seeds))
    return ops.minimum(ops.cast(share * ops.cast(limits, "float32"), "int32"), limits - 1)


def _draw_pairs(alpha, count, seeds):
    partners = random.shuffle(ops.arange(count, dtype="int32"), seed=next(seeds))
    return partners, random.beta((count,), alpha, alpha, seed=next(seeds))


def _interval(side, size, seeds):
    """Draws intervals of length `side * size` about random centres, clipped to 0 .. `size`."""
    length = ops.cast(side * size, "int32")
    start = random.randint(side.shape, 0, size, seed=next(seeds)) - length // 2
    return ops.maximum(start, 0), ops.minimum(start + length, size)
