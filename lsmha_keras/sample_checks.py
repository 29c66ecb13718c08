"""Checks of what models are given: images, ids of words, series, labels and sample weights."""

import warnings

import numpy as np

from lsmha_keras.errors import InputError
from lsmha_keras.words import PADDING_ID


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
    """Refuses values that are NaN or infinite: the loss would be as well.

    Args:
        name: str, what one of them is called.
        values: NumPy array with a row for each sample.
        first: int, number of the first row's sample, for the message; `None` leaves it out.

    Raises:
        ValueError: if a number is not finite; names the first one's row.
    """
    if values.dtype.kind != "f" or np.isfinite(values).all():
        return
    rows = np.atleast_1d(values)
    row = np.flatnonzero(~np.isfinite(rows.reshape(len(rows), -1)).all(axis=1))[0]
    where = "" if first is None else f" of sample {first + row}"
    raise InputError(f"Each {name} must be finite. Received: {name} {rows[row]}{where}")


def check_ids(ids, sequence_length, vocabulary_size):
    """Refuses ids that a model does not know.

    Args:
        ids: NumPy array.
        sequence_length: int, how many ids a text has.
        vocabulary_size: int, how many ids there are.

    Raises:
        ValueError: if the shape is not `(batch, sequence_length)`, or an id is out of range.
    """
    if ids.ndim != 2 or ids.shape[1] != sequence_length or ids.dtype.kind not in "iu":
        raise InputError(
            f"Ids must be ints of shape (batch, {sequence_length}), with {PADDING_ID} after the "
            f"end of shorter texts. Received: {ids.dtype} of shape {ids.shape}"
        )
    if ids.size and (ids.min() < 0 or ids.max() >= vocabulary_size):
        raise InputError(
            f"Ids must be from 0 to {vocabulary_size - 1}: the vocabulary has {vocabulary_size}. "
            f"Received: ids from {ids.min()} to {ids.max()}"
        )


def check_series(series, shape):
    """Refuses series that a model does not take.

    Args:
        series: NumPy array.
        shape: tuple of two ints, time steps and features of a series.

    Raises:
        ValueError: if they are no finite numbers of shape `(batch, time, features)`.
    """
    if series.dtype.kind not in "biuf" or series.shape[1:] != tuple(shape):
        raise InputError(
            f"Series must be numbers of shape (batch, {', '.join(map(str, shape))}), time steps "
            f"and features. Received: {series.dtype} of shape {series.shape}"
        )
    check_finite("series", series, first=0)
