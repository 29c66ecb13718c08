"""NumPy archives in the layout of Keras's built-in datasets."""

import zipfile

import numpy as np

from lsmha_keras.data.array_dataset import ArrayDataset
from lsmha_keras.image_values import check_finite


def open_npz(path, base, image_size=None):
    """Opens an `.npz` file.

    Args:
        path: file with `x_train, y_train, x_test, y_test` (any `x_<part>, y_<part>` pairs), or
            with `x, y`, whose only part is "train". Optional: `class_names`.
        base: name of the part.
        image_size: see `ImageDataset`.

    Returns:
        An `ArrayDataset`.

    Raises:
        ValueError: if the file is damaged or lacks the arrays.
    """
    try:
        with np.load(path, allow_pickle=False) as archive:
            suffix = "" if {"x", "y"} <= set(archive) and base == "train" else f"_{base}"
            wanted = (f"x{suffix}", f"y{suffix}")
            if not set(wanted) <= set(archive):
                raise ValueError(
                    f"{path} must hold the arrays {wanted[0]!r} and {wanted[1]!r} for the split "
                    f"{base!r}. Received: the arrays {sorted(archive)}"
                )
            images, labels = (archive[key] for key in wanted)
            num_classes = 1 + max(_largest(archive[key]) for key in archive if _is_labels(key))
            names = archive["class_names"] if "class_names" in archive else range(num_classes)
            return ArrayDataset(images, labels, list(names), image_size, name=str(path))
    except (zipfile.BadZipFile, EOFError, OSError) as error:
        raise ValueError(f"{path} is not a sound .npz file. Received: {error}") from error


def _is_labels(key):
    # All parts count, so that train and test agree on the number of classes.
    return key == "y" or key.startswith("y_")


def _largest(labels):
    check_finite("label", labels, first=0)
    return int(labels.max(initial=-1))
