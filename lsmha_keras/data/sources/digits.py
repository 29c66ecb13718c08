"""Scikit-learn's handwritten digits."""

import functools

import numpy as np

from lsmha_keras.data.datasets import ArrayDataset
from lsmha_keras.data.sequences import SequenceDataset
from lsmha_keras.errors import PackageError
from lsmha_keras.images import resize_image

SPLITS = ("train", "test")
_SIZE = 32
_SEED = 0
_TEST_FRACTION = 0.2


def open_digits(base, image_size=None):
    """Opens the digits: 1,797 real 8x8 images of 10 classes that come with scikit-learn.

    They are scaled from 0 .. 16 to 0 .. 255, resized to 32x32 and repeated over three channels. A
    fixed stratified split leaves 1,437 images for "train" and 360 for "test".

    Args:
        base: "train" or "test".
        image_size: see `ImageDataset`.

    Returns:
        An `ArrayDataset`.

    Raises:
        ImportError: if scikit-learn is not installed.
    """
    images, labels, train, test = _read_digits()
    rows = train if base == "train" else test
    names = [str(digit) for digit in range(10)]
    return ArrayDataset(images[rows], labels[rows], names, image_size, name="digits")


def open_digits_series(base):
    """Opens the same digits as series: the 8 rows of a digit are time steps of 8 features, 0 .. 1.

    Args:
        base: "train" or "test".

    Returns:
        A `SequenceDataset`.

    Raises:
        ImportError: if scikit-learn is not installed.
    """
    _, labels, train, test = _read_digits()
    from sklearn.datasets import load_digits

    rows = train if base == "train" else test
    series, names = load_digits().images[rows] / 16, [str(digit) for digit in range(10)]
    return SequenceDataset(series, labels[rows], names, name="digits_series")


@functools.cache
def _read_digits():
    try:
        from sklearn.datasets import load_digits
        from sklearn.model_selection import train_test_split
    except ImportError as error:
        raise PackageError(
            "The dataset 'digits' comes with scikit-learn, which is not installed. "
            "Install it with: pip install scikit-learn"
        ) from error

    digits = load_digits()
    small = np.rint(digits.images * (255 / 16)).astype("uint8")[..., None]
    grey = np.stack([resize_image(image, (_SIZE, _SIZE)) for image in small])
    images = np.repeat(grey, 3, axis=-1)
    train, test = train_test_split(
        np.arange(len(images)),
        test_size=_TEST_FRACTION,
        random_state=_SEED,
        stratify=digits.target,
    )
    return images, digits.target, train, test
