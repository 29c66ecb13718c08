"""Crops, flips and affine transforms of a batch, on the device.

Does what `augmentation` does in NumPy, as gathers over the whole batch in `keras.ops`. Positions
are float32 here and float64 there, so interpolated pixels may differ by one grey level; all others
are equal. Grey levels are int32.
"""

import numpy as np
from keras import ops


def crop_padded(images, tops, lefts, padding):
    """Pads images with black and crops each back to its size.

    Args:
        images: `(batch, height, width, channels)` int32.
        tops: `(batch,)` int32 in `0 .. 2 * padding`, the crops' first rows.
        lefts: the same for the columns.
        padding: int, pixels on each side.

    Returns:
        int32 images; `tops = lefts = padding` returns them unchanged.
    """
    height, width = images.shape[1:3]
    rows = ops.arange(height, dtype="int32")[:, None] + (tops - padding)[:, None, None]
    columns = ops.arange(width, dtype="int32") + (lefts - padding)[:, None, None]
    inside = (rows >= 0) & (rows < height) & (columns >= 0) & (columns < width)
    return ops.where(inside[..., None], _gather(images, rows, columns), 0)


def mirror(images, chosen):
    """Flips the chosen images left to right.

    Args:
        images: `(batch, height, width, channels)`.
        chosen: `(batch,)` bool.

    Returns:
        Images of the same shape and type.
    """
    return ops.where(chosen[:, None, None, None], ops.flip(images, axis=2), images)


def crop_and_enlarge(images, boxes):
    """Crops a box from each image and resizes it to the image's size, bilinearly.

    Args:
        images: `(batch, height, width, channels)` int32.
        boxes: `(batch, 4)` int32: top, left, height, width.

    Returns:
        int32 images.
    """
    height, width = images.shape[1:3]
    upper, lower, share = _sources(boxes[:, 0], boxes[:, 2], height)
    pixels = ops.cast(images, "float32")
    above, below = (_take(pixels, rows[:, :, None, None], 1) for rows in (upper, lower))
    pixels = above + share[:, :, None, None] * (below - above)
    left, right, share = _sources(boxes[:, 1], boxes[:, 3], width)
    before, after = (_take(pixels, columns[:, None, :, None], 2) for columns in (left, right))
    share = share[:, None, :, None]
    return ops.cast((1 - share) * before + share * after + 0.5, "int32")


def affine_matrices(names, arguments, height, width):
    """Returns each image's matrix `(a, b, c, d, e, f)`, as `augmentation.affine` defines it.

    Args:
        names: dict from some of "Rotate", "ShearX", "ShearY", "TranslateX" and "TranslateY" to
            `(batch,)` bool, whether an image gets that transform. One that gets none gets the
            identity.
        arguments: dict from the same names to `(batch,)` float32: degrees, shear, or the
            translation as a fraction of the side.
        height: int.
        width: int.

    Returns:
        List of six `(batch,)` float32.
    """
    zero = ops.zeros_like(next(iter(arguments.values())))
    a, b, c, d, e, f = zero + 1, zero, zero, zero, zero + 1, zero
    if "Rotate" in names:
        angle = -ops.where(names["Rotate"], arguments["Rotate"], 0.0) * (np.pi / 180)
        a, b, d, e = ops.cos(angle), ops.sin(angle), -ops.sin(angle), ops.cos(angle)
        x, y = width / 2, height / 2
        c, f = x - a * x - b * y, y - d * x - e * y
    if "ShearX" in names:
        b = ops.where(names["ShearX"], arguments["ShearX"], b)
    if "TranslateX" in names:
        c = ops.where(names["TranslateX"], arguments["TranslateX"] * width, c)
    if "ShearY" in names:
        d = ops.where(names["ShearY"], arguments["ShearY"], d)
    if "TranslateY" in names:
        f = ops.where(names["TranslateY"], arguments["TranslateY"] * height, f)
    return [a, b, c, d, e, f]


def transform(images, matrices, fill, interpolation):
    """Applies an affine transform to each image.

    Args:
        images: `(batch, height, width, channels)` int32.
        matrices: six `(batch,)` float32.
        fill: grey level of points outside the old image; one, or one per channel.
        interpolation: "nearest" or "bilinear".

    Returns:
        int32 images.
    """
    sample = _nearest if interpolation == "nearest" else _bilinear
    pixels, inside = sample(images, matrices)
    fill = ops.convert_to_tensor(fill, dtype="int32")
    return ops.where(inside[..., None], pixels, fill)


def _nearest(images, matrices):
    height, width = images.shape[1:3]
    a, b, c, d, e, f = matrices
    moved = (a == 1) & (b == 0) & (d == 0) & (e == 1)
    x = _fixed_point(a, b, c, moved, height, width)
    y = _fixed_point(d, e, f, moved, height, width)
    inside = (x >= 0) & (x < width) & (y >= 0) & (y < height)
    return _gather(images, y, x), inside


def _fixed_point(by_column, by_row, offset, moved, height, width):
    """Pillow's positions: with 16 fractional bits, except for pure translations."""
    start = by_column * 0.5 + by_row * 0.5 + offset
    start = ops.where(moved, ops.floor(start), start)
    origin, by_column, by_row = (
        ops.cast(ops.floor(value * 65536 + 0.5), "int32")[:, None, None]
        for value in (start, by_column, by_row)
    )
    rows = ops.arange(height, dtype="int32")[:, None]
    return (origin + by_column * ops.arange(width, dtype="int32") + by_row * rows) // 65536


def _bilinear(images, matrices):
    height, width = images.shape[1:3]
    a, b, c, d, e, f = (value[:, None, None] for value in matrices)
    x = ops.arange(width, dtype="float32") + 0.5
    y = ops.arange(height, dtype="float32")[:, None] + 0.5
    x, y = a * x + b * y + c, d * x + e * y + f
    inside = (x >= 0) & (x < width) & (y >= 0) & (y < height)
    x, y = x - 0.5, y - 0.5
    left, top = ops.floor(x), ops.floor(y)
    right_share, lower_share = (x - left)[..., None], (y - top)[..., None]
    left, top = ops.cast(left, "int32"), ops.cast(top, "int32")
    pixels = ops.cast(images, "float32")
    rows = []
    for row in (top, top + 1):
        before, after = (_gather(pixels, row, column) for column in (left, left + 1))
        rows.append(before + right_share * (after - before))
    return ops.cast(rows[0] + lower_share * (rows[1] - rows[0]), "int32"), inside


def _gather(images, rows, columns):
    """Returns `images[i, rows[i], columns[i]]`; positions outside get the nearest border pixel."""
    count, height, width, channels = images.shape
    positions = ops.clip(rows, 0, height - 1) * width + ops.clip(columns, 0, width - 1)
    positions = ops.reshape(positions, (count, height * width, 1))
    flat = ops.reshape(images, (count, height * width, channels))
    return ops.reshape(_take(flat, positions, 1), images.shape)


def _take(array, indices, axis):
    shape = list(array.shape)
    shape[axis] = indices.shape[axis]
    return ops.take_along_axis(array, ops.broadcast_to(indices, shape), axis=axis)


def _sources(start, length, size):
    """Returns, for each new pixel, the two old ones and the weight of the second."""
    start, length = start[:, None], length[:, None]
    span = ops.cast(length, "float32")
    position = (ops.arange(size, dtype="float32") + 0.5) * (span / size) - 0.5
    position = ops.clip(position, 0, span - 1)
    first = ops.cast(ops.floor(position), "int32")
    second = ops.minimum(first + 1, length - 1)
    return first + start, second + start, position - ops.cast(first, "float32")
