"""Colour operations that blend an image with a degenerate version of itself.

The results equal Pillow's `ImageEnhance` exactly.
"""

import numpy as np

from lsmha_keras.data.augmentation.color_tables import grey


def color(images, factors):
    """Blends with the grey image: factor 0 is grey, 1 the image itself."""
    return _blend(grey(images), images, factors)


def sharpness(images, factors):
    """Blends with the smoothed image: factor 0 is smooth, 1 the image itself."""
    return _blend(_smooth(images), images, factors)


def _smooth(images):
    """Pillow's SMOOTH filter: weights (1 1 1, 1 5 1, 1 1 1) / 13; the border is left as it is."""
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
    # float32 and cut off, not rounded, as in Pillow's `Image.blend`.
    blended = images - base
    blended *= factors.astype("float32")[:, None, None, None]
    blended += base
    return np.clip(blended, 0, 255, out=blended).astype("uint8")
