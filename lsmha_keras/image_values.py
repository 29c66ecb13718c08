"""Checks the values of images before they are normalised, and of what belongs to them."""

import warnings

import numpy as np

from lsmha_keras.errors import InputError


def check_image_values(images):
    """Raises `ValueError` unless a NumPy array holds numbers from 0 to 255."""
    if images.dtype.kind not in "uif":
        raise InputError(
            f"Images must be integers or floats from 0 to 255. Received: dtype {images.dtype}"
        )
    if images.dtype == np.uint8 or not images.size:
        return
    low, high = images.min(), images.max()
    if not (low >= 0 and high <= 255):  # Also true if either is NaN.
        raise InputError(
            "Images must have values from 0 to 255, unnormalised. "
            f"Received: values from {low} to {high}"
        )


def warn_of_fractions(images, stacklevel=2):
    """Warns if floats end at 1 or below, which are taken for all but black images.

    Args:
        images: NumPy array.
        stacklevel: as for `warnings.warn`.

    Returns:
        bool, whether it warned.
    """
    high = images.max() if images.dtype.kind == "f" and images.size else 0
    if not 0 < high <= 1:
        return False
    warnings.warn(
        "Images are expected with values in 0 .. 255, and the largest here is "
        f"{high:g}: multiply images in 0 .. 1 by 255.",
        stacklevel=stacklevel + 1,
    )
    return True


def check_finite(name, values, first=None):
    """Refuses labels or sample weights that are NaN or infinite: the loss would be as well.

    Args:
        name: str, what one of them is called.
        values: NumPy array with a row for each image.
        first: int, number of the first row's image, for the message; `None` leaves it out.

    Raises:
        ValueError: if a number is not finite; names the first one's row.
    """
    if values.dtype.kind != "f" or np.isfinite(values).all():
        return
    rows = np.atleast_1d(values)
    row = np.flatnonzero(~np.isfinite(rows.reshape(len(rows), -1)).all(axis=1))[0]
    where = "" if first is None else f" of image {first + row}"
    raise InputError(f"Each {name} must be finite. Received: {name} {rows[row]}{where}")
