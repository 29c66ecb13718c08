"""Colour operations on batches of uint8 images, equal to Pillow's.

Most are lookup tables from old to new grey levels: the function returns `(images, channels or 1,
256)` uint8 tables, which `look_up` applies. `color` and `sharpness` blend an image with a
degenerate version of itself, as Pillow's `ImageEnhance` does, and return images.
"""

import numpy as np

_LEVELS = np.arange(256)
# Pillow's weights of red, green and blue, in units of 1 / 65536.
_GREY_WEIGHTS = np.array([19595, 38470, 7471], dtype="int32")


def look_up(images, tables):
    """Replaces every grey level by its entry in the table.

    Args:
        images: `(images, height, width, channels)` uint8.
        tables: `(images, channels or 1, 256)` uint8.

    Returns:
        uint8 images.
    """
    tables = np.broadcast_to(tables, (len(images), images.shape[-1], 256))
    return tables.reshape(-1).take(_positions(images)).reshape(images.shape)


def grey(images):
    """Converts to grey as Pillow's `convert("L")`.

    Args:
        images: `(images, height, width, channels)` uint8 with 1 or 3 channels.

    Returns:
        `(images, height, width, 1)` uint8.
    """
    if images.shape[-1] == 1:
        return images
    # Channel by channel: multiplying by a 3-vector is many times slower.
    total = np.full(images.shape[:-1], 0x8000, dtype="int32")
    for channel, weight in enumerate(_GREY_WEIGHTS):
        total += images[..., channel] * weight
    return (total >> 16).astype("uint8")[..., None]


def invert(images, arguments):
    """Inverts the levels; the argument is ignored."""
    return _per_image(255 - _LEVELS[None] + 0 * arguments[:, None])


def posterize(images, bits):
    """Keeps the highest `bits` bits of each level."""
    return _per_image(_LEVELS & -(1 << (8 - bits.astype("int64")))[:, None])


def solarize(images, thresholds):
    """Inverts the levels at and above the threshold."""
    return _per_image(np.where(_LEVELS < thresholds[:, None], _LEVELS, 255 - _LEVELS))


def solarize_add(images, additions):
    """Adds to the levels below 128."""
    raised = np.minimum(255, _LEVELS + additions.astype("int64")[:, None])
    return _per_image(np.where(_LEVELS < 128, raised, _LEVELS))


def brightness(images, factors):
    """Blends with black: factor 0 is black, 1 the image itself."""
    return _blend_levels(np.zeros(len(images)), factors)


def contrast(images, factors):
    """Blends with the image's mean grey level: factor 0 is flat, 1 the image itself."""
    mean = grey(images).mean(axis=(1, 2, 3), dtype="float64")
    return _blend_levels(np.floor(mean + 0.5), factors)


def auto_contrast(images, arguments):
    """Stretches each channel to 0 .. 255; the argument is ignored."""
    # One axis at a time: both at once is ten times slower.
    low = images.min(axis=1).min(axis=1).astype("float64")[..., None]
    span = images.max(axis=1).max(axis=1)[..., None] - low
    scale = 255.0 / np.maximum(span, 1)
    stretched = np.clip(np.trunc(_LEVELS * scale + -low * scale), 0, 255)
    return np.where(span > 0, stretched, _LEVELS).astype("uint8")


def equalize(images, arguments):
    """Equalizes the histogram of each channel; the argument is ignored."""
    count, _, _, channels = images.shape
    histogram = np.bincount(_positions(images).ravel(), minlength=count * channels * 256)
    histogram = histogram.reshape(count, channels, 256)
    total = images.shape[1] * images.shape[2]
    # Pillow leaves out the pixels of the brightest level.
    highest = images.max(axis=1).max(axis=1)[..., None].astype("int64")
    step = (total - np.take_along_axis(histogram, highest, axis=-1)) // 255
    below = np.cumsum(histogram, axis=-1) - histogram
    table = np.minimum(255, (step // 2 + below) // np.maximum(step, 1))
    return np.where(step > 0, table, _LEVELS).astype("uint8")


def _positions(images):
    """Flat positions of all levels in `(images, channels, 256)` tables."""
    count, height, width, channels = images.shape
    starts = np.arange(count * channels).reshape(count, 1, channels) * 256
    # Over whole rows: broadcasting over three channels would be slow.
    return images.reshape(count, height, -1) + np.tile(starts, (1, 1, width))


def _per_image(tables):
    return tables.astype("uint8")[:, None]


def _blend_levels(base, factors):
    # In float32 and truncated, not rounded, as in Pillow's `Image.blend`.
    base = base.astype("float32")[:, None]
    levels = base + factors.astype("float32")[:, None] * (_LEVELS.astype("float32") - base)
    return _per_image(np.clip(levels, 0, 255))


def color(images, factors):
    """Blends with the grey image: factor 0 is grey, 1 the image itself."""
    return _blend(grey(images), images, factors)


def sharpness(images, factors):
    """Blends with the smoothed image: factor 0 is smooth, 1 the image itself."""
    return _blend(_smooth(images), images, factors)


def _smooth(images):
    """Pillow's SMOOTH filter, (1 1 1, 1 5 1, 1 1 1) / 13; it does not change the border."""
    height, width = images.shape[1:3]
    smooth = images.copy()
    if height < 3 or width < 3:
        return smooth
    wide = images.astype("uint16")
    lines = wide[:, :-2] + wide[:, 1:-1] + wide[:, 2:]
    total = lines[:, :, :-2] + lines[:, :, 1:-1] + lines[:, :, 2:] + 4 * wide[:, 1:-1, 1:-1]
    smooth[:, 1:-1, 1:-1] = (2 * total + 13) // 26  # total / 13, rounded
    return smooth


def _blend(base, images, factors):
    base = base.astype("float32")
    # In float32 and truncated, not rounded, as in Pillow's `Image.blend`.
    blended = images - base
    blended *= factors.astype("float32")[:, None, None, None]
    blended += base
    return np.clip(blended, 0, 255, out=blended).astype("uint8")
