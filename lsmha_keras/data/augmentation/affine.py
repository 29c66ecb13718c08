"""Rotation, shear and translation.

A matrix `(a, b, c, d, e, f)` maps a point (x, y) of the new image to the point
`(a x + b y + c, d x + e y + f)` of the old one, as in Pillow's `Image.transform` with `AFFINE`.
"""

import numpy as np

INTERPOLATIONS = ("nearest", "bilinear")


def rotate(degrees, height, width):
    """Returns the matrices of rotations about the centre.

    Args:
        degrees: `(images,)` floats, counter-clockwise.
        height: int, of the images in pixels.
        width: int.

    Returns:
        `(images, 6)` floats.
    """
    angle = -np.radians(degrees)
    cos, sin = np.cos(angle).round(15), np.sin(angle).round(15)
    x, y = width / 2, height / 2
    return np.stack([cos, sin, x - cos * x - sin * y, -sin, cos, y + sin * x - cos * y], axis=1)


def shear_x(factors, height, width):
    """Returns the matrices `(1, factor, 0, 0, 1, 0)`."""
    return _matrices(len(factors), 1, factors)


def shear_y(factors, height, width):
    """Returns the matrices `(1, 0, 0, factor, 1, 0)`."""
    return _matrices(len(factors), 3, factors)


def translate_x(fractions, height, width):
    """Returns the matrices `(1, 0, fraction * width, 0, 1, 0)`."""
    return _matrices(len(fractions), 2, fractions * width)


def translate_y(fractions, height, width):
    """Returns the matrices `(1, 0, 0, 0, 1, fraction * height)`."""
    return _matrices(len(fractions), 5, fractions * height)


def transform(images, matrices, fill=(128,), interpolation="nearest"):
    """Applies an affine transform to each image.

    Args:
        images: `(images, height, width, channels)` uint8.
        matrices: `(images, 6)` floats.
        fill: grey level of points outside the old image; one, or one per channel.
        interpolation: "nearest" (equal to Pillow's) or "bilinear" (within one grey level of it).

    Returns:
        uint8 images of the same shape.
    """
    sample = _nearest if interpolation == "nearest" else _bilinear
    return sample(images, matrices.astype("float64"), np.asarray(fill, dtype="uint8"))


def _matrices(count, position, values):
    matrices = np.tile(np.array([1.0, 0, 0, 0, 1, 0]), (count, 1))
    matrices[:, position] = values
    return matrices


def _nearest(images, matrices, fill):
    matrices = matrices.reshape(-1, 2, 3)
    start = matrices @ [0.5, 0.5, 1.0]
    # Pillow computes pure translations in float64, all other maps with 16 fractional bits.
    moved = (matrices[:, :, :2] == np.eye(2)).all(axis=(1, 2))
    start[moved] = np.floor(start[moved])
    origin = np.floor(start * 65536 + 0.5).astype("int32")
    slopes = np.floor(matrices[:, :, :2] * 65536 + 0.5).astype("int32")
    x, y = (
        _plane(origin[:, axis], slopes[:, axis, 0], slopes[:, axis, 1], images) >> 16
        for axis in (0, 1)
    )
    height, width = images.shape[1:3]
    inside = (x >= 0) & (x < width) & (y >= 0) & (y < height)
    rows, columns = np.clip(y, 0, height - 1), np.clip(x, 0, width - 1)
    nearest = _positions(rows, columns, height * width, width)
    pixels = images.reshape(-1, images.shape[-1]).take(nearest, axis=0)
    pixels[~inside] = fill
    return pixels


def _bilinear(images, matrices, fill):
    height, width = images.shape[1:3]
    a, b, c, d, e, f = (column[:, None, None] for column in matrices.T)
    x, y = np.arange(width) + 0.5, (np.arange(height) + 0.5)[:, None]
    x, y = a * x + b * y + c, d * x + e * y + f
    inside = (x >= 0) & (x < width) & (y >= 0) & (y < height)
    x, y = x - 0.5, y - 0.5
    left, top = np.floor(x), np.floor(y)
    right_share, lower_share = (x - left).astype("float32"), (y - top).astype("float32")
    # Padding keeps the four neighbours at fixed distances in memory, at the border too.
    padded = np.pad(images, ((0, 0), (1, 1), (1, 1), (0, 0)), mode="edge")
    line = width + 2
    corner = _positions(
        np.clip(top + 1, 0, height), np.clip(left + 1, 0, width), (height + 2) * line, line
    )
    pixels = np.empty_like(images)
    # Channel by channel: NumPy's inner loop then runs over all pixels, not over three channels.
    for channel in range(images.shape[-1]):
        plane = padded[..., channel].astype("float32").ravel()
        upper = _mix(plane.take(corner), plane[1:].take(corner), right_share)
        lower = _mix(plane[line:].take(corner), plane[line + 1 :].take(corner), right_share)
        pixels[..., channel] = _mix(upper, lower, lower_share)
    pixels[~inside] = fill
    return pixels


def _plane(origin, slope_x, slope_y, images):
    """`origin + slope_x * x + slope_y * y` for each image and pixel."""
    y, x = np.ogrid[: images.shape[1], : images.shape[2]]
    origin, slope_x, slope_y = (v[:, None, None] for v in (origin, slope_x, slope_y))
    return origin + slope_x * x.astype("int32") + slope_y * y.astype("int32")


def _positions(rows, columns, image, line):
    """Flat positions of `[i, rows[i], columns[i]]`; `image` and `line` are sizes in pixels."""
    positions = rows.astype("int64")
    positions *= line
    positions += columns.astype("int64")
    positions += np.arange(len(rows))[:, None, None] * image
    return positions


def _mix(first, second, share):
    second -= first
    second *= share
    second += first
    return second
