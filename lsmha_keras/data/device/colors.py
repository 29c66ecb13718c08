"""The colour operations of `augmentation.colors`, on the device.

The same formulas in `keras.ops`. Every operation runs on the whole batch, and one is picked for
each image afterwards. Grey levels are int32. Integer operations equal the NumPy ones exactly. Two
kinds may differ by one grey level: blends, which are truncated in float32 after a compiler may have
fused a product and a sum, and AutoContrast, which rounds an exact quotient down where NumPy rounds
a float64 one.
"""

from keras import ops

# Pillow's weights of red, green and blue, in units of 1 / 65536.
_GREY_WEIGHTS = (19595, 38470, 7471)


def levels(dtype="int32"):
    """Returns the levels 0 .. 255: as a table, the identity."""
    return ops.arange(256, dtype=dtype)


def look_up(images, tables):
    """Replaces every grey level by its entry in the table.

    Args:
        images: `(images, height, width, channels)` int32 in 0 .. 255.
        tables: `(images, channels, 256)` int32.

    Returns:
        int32 images.
    """
    count, height, width, channels = images.shape
    planes = ops.reshape(ops.transpose(images, (0, 3, 1, 2)), (count, channels, height * width))
    found = ops.take_along_axis(tables, planes, axis=2)
    return ops.transpose(ops.reshape(found, (count, channels, height, width)), (0, 2, 3, 1))


def grey(images):
    """Converts to grey as Pillow's `convert("L")`; `(images, height, width, 1)` int32."""
    if images.shape[-1] == 1:
        return images
    total = sum(images[..., i : i + 1] * weight for i, weight in enumerate(_GREY_WEIGHTS))
    return (total + 0x8000) // 65536


def invert(images, arguments):
    """Inverts the levels; the argument is ignored."""
    return (255 - levels())[None, None]


def posterize(images, bits):
    """Keeps the highest `bits` bits of each level."""
    unit = ops.left_shift(1, 8 - ops.cast(bits, "int32"))[:, None, None]
    return levels() // unit * unit


def solarize(images, thresholds):
    """Inverts the levels at and above the threshold."""
    thresholds = ops.cast(thresholds, "int32")[:, None, None]
    return ops.where(levels() < thresholds, levels(), 255 - levels())


def solarize_add(images, additions):
    """Adds to the levels below 128."""
    raised = levels() + ops.cast(additions, "int32")[:, None, None]
    return ops.where(levels() < 128, ops.minimum(raised, 255), levels())


def brightness(images, factors):
    """Blends with black: factor 0 is black, 1 the image itself."""
    return _blend(0.0, levels("float32"), factors[:, None, None])


def contrast(images, factors):
    """Blends with the image's mean grey level: factor 0 is flat, 1 the image itself."""
    pixels = images.shape[1] * images.shape[2]
    total = ops.sum(grey(images), axis=(1, 2, 3))
    mean = ops.cast((2 * total + pixels) // (2 * pixels), "float32")  # rounded
    return _blend(mean[:, None, None], levels("float32"), factors[:, None, None])


def auto_contrast(images, arguments):
    """Stretches each channel to 0 .. 255; the argument is ignored."""
    low = ops.min(images, axis=(1, 2))[..., None]
    span = ops.max(images, axis=(1, 2))[..., None] - low
    stretched = ops.clip((levels() - low) * 255 // ops.maximum(span, 1), 0, 255)
    return ops.where(span > 0, stretched, levels())


def equalize(images, arguments):
    """Equalizes the histogram of each channel; the argument is ignored."""
    count, height, width, channels = images.shape
    starts = ops.arange(0, 256 * count * channels, 256, dtype="int32")
    starts = ops.reshape(starts, (count, 1, 1, channels))
    positions = ops.reshape(images + starts, (-1,))
    ones = ops.ones_like(positions)
    histogram = ops.segment_sum(ones, positions, num_segments=count * channels * 256)
    histogram = ops.reshape(histogram, (count, channels, 256))
    # Pillow leaves out the pixels of the brightest level.
    highest = ops.max(images, axis=(1, 2))[..., None]
    step = (height * width - ops.take_along_axis(histogram, highest, axis=2)) // 255
    below = ops.cumsum(histogram, axis=2) - histogram
    table = ops.minimum(255, (step // 2 + below) // ops.maximum(step, 1))
    return ops.where(step > 0, table, levels())


def color(images, factors):
    """Blends with the grey image: factor 0 is grey, 1 the image itself."""
    base = ops.cast(grey(images), "float32")
    return _blend(base, ops.cast(images, "float32"), factors[:, None, None, None])


def sharpness(images, factors):
    """Blends with the smoothed image: factor 0 is smooth, 1 the image itself."""
    base = ops.cast(_smooth(images), "float32")
    return _blend(base, ops.cast(images, "float32"), factors[:, None, None, None])


TABLES = {
    "AutoContrast": auto_contrast,
    "Equalize": equalize,
    "Invert": invert,
    "Posterize": posterize,
    "Solarize": solarize,
    "SolarizeAdd": solarize_add,
    "Contrast": contrast,
    "Brightness": brightness,
}
BLENDS = {"Color": color, "Sharpness": sharpness}


def _smooth(images):
    """Pillow's SMOOTH filter, (1 1 1, 1 5 1, 1 1 1) / 13; it does not change the border."""
    height, width = images.shape[1:3]
    if height < 3 or width < 3:
        return images
    lines = images[:, :-2] + images[:, 1:-1] + images[:, 2:]
    total = lines[:, :, :-2] + lines[:, :, 1:-1] + lines[:, :, 2:] + 4 * images[:, 1:-1, 1:-1]
    inner = (2 * total + 13) // 26  # total / 13, rounded
    middle = ops.concatenate([images[:, 1:-1, :1], inner, images[:, 1:-1, -1:]], axis=2)
    return ops.concatenate([images[:, :1], middle, images[:, -1:]], axis=1)


def _blend(base, values, factors):
    # Truncated, not rounded, as in Pillow's `Image.blend`.
    return ops.cast(ops.clip(base + factors * (values - base), 0, 255), "int32")
