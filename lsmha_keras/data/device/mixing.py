"""Erasing, MixUp and CutMix of a batch on the device, for given boxes, partners and weights.

The results equal those of `augmentation` in NumPy, except that MixUp may differ by one grey level
where a compiler fuses a product and a sum. Grey levels are int32.
"""

from keras import ops


def erase(images, boxes, chosen, noise):
    """Fills a box in each chosen image with noise.

    Args:
        images: `(batch, height, width, channels)` int32.
        boxes: `(batch, 4)` int32: top, left, height, width.
        chosen: `(batch,)` bool.
        noise: int32, of the images' shape, in 0 .. 255.

    Returns:
        int32 images.
    """
    top, left, tall, wide = (boxes[:, column] for column in range(4))
    inside = _box(images.shape, top, top + tall, left, left + wide)
    return ops.where(inside & chosen[:, None, None, None], noise, images)


def mix_up(images, labels, partners, weights):
    """Blends each image, and its label, with its partner.

    Args:
        images: `(batch, height, width, channels)` int32.
        labels: `(batch, classes)` float32.
        partners: `(batch,)` int32.
        weights: `(batch,)` float32 in 0 .. 1; the partner gets the rest.

    Returns:
        int32 images, rounded, and `(batch, classes)` float32 labels.
    """
    pixels = ops.cast(images, "float32")
    mixed = _blend(pixels, weights[:, None, None, None], partners) + 0.5
    return ops.cast(mixed, "int32"), _blend(labels, weights[:, None], partners)


def cut_mix(images, labels, partners, rows, columns):
    """Replaces a box in each image by its partner's, and mixes the labels by area.

    Args:
        images: `(batch, height, width, channels)` int32.
        labels: `(batch, classes)` float32.
        partners: `(batch,)` int32.
        rows: two `(batch,)` int32, the box's first row and the one after its last.
        columns: the same for the columns.

    Returns:
        int32 images and `(batch, classes)` float32 labels.
    """
    height, width = images.shape[1:3]
    inside = _box(images.shape, *rows, *columns)
    mixed = ops.where(inside, ops.take(images, partners, axis=0), images)
    area = (rows[1] - rows[0]) * (columns[1] - columns[0])
    kept = 1 - ops.cast(area, "float32") / (height * width)
    return mixed, _blend(labels, kept[:, None], partners)


def _box(shape, top, bottom, left, right):
    """Returns a `(batch, height, width, 1)` bool, whether a pixel lies in its image's box."""
    row = ops.arange(shape[1], dtype="int32")[:, None, None]
    column = ops.arange(shape[2], dtype="int32")[:, None]
    top, bottom, left, right = (x[:, None, None, None] for x in (top, bottom, left, right))
    return (row >= top) & (row < bottom) & (column >= left) & (column < right)


def _blend(rows, weights, partners):
    return weights * rows + (1 - weights) * ops.take(rows, partners, axis=0)
