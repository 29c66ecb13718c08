"""NumPy archives: a dataset in one file, or in several where the size of a file is limited."""

import re
import zipfile

import numpy as np

from lsmha_keras.data.datasets import ArrayDataset
from lsmha_keras.data.sequences import SequenceDataset
from lsmha_keras.errors import InputError
from lsmha_keras.sample_checks import check_finite

_NAME = re.compile(r"(?P<split>.+)-(?P<number>\d+)-of-(?P<count>\d+)\.npz")


def open_npz(path, base, image_size=None):
    """Opens an `.npz` file.

    Args:
        path: file with `x_train, y_train, x_test, y_test` (any `x_<part>, y_<part>` pairs), or
            with `x, y`, whose only part is "train". Series, `(series, time, features)` numbers,
            are called `series` in place of `x`. Optional: `class_names`.
        base: name of the part.
        image_size: see `ImageDataset`.

    Returns:
        An `ArrayDataset`, or a `SequenceDataset` of series.

    Raises:
        ValueError: if the file is damaged or lacks the arrays, or they hold no images and labels.
    """
    try:
        with np.load(path, allow_pickle=False) as archive:
            kind = "series" if any(key.split("_")[0] == "series" for key in archive) else "x"
            suffix = "" if {kind, "y"} <= set(archive) and base == "train" else f"_{base}"
            wanted = (f"{kind}{suffix}", f"y{suffix}")
            if not set(wanted) <= set(archive):
                raise InputError(
                    f"{path} must hold the arrays {wanted[0]!r} and {wanted[1]!r} for the split "
                    f"{base!r}. Received: the arrays {sorted(archive)}"
                )
            images, labels = (archive[key] for key in wanted)
            num_classes = 1 + max(_largest(archive[key]) for key in archive if _is_labels(key))
            names = archive["class_names"] if "class_names" in archive else range(num_classes)
            if kind == "series":
                return SequenceDataset(images, labels, list(names), name=str(path))
            return ArrayDataset(images, labels, list(names), image_size, name=str(path))
    except (zipfile.BadZipFile, EOFError, OSError) as error:
        raise InputError(f"{path} is not a valid .npz file. Received: {error}") from error


def _is_labels(key):
    # The labels of all parts count, so that train and test agree on the number of classes.
    return key == "y" or key.startswith("y_")


def _largest(labels):
    check_finite("label", labels, first=0)
    return int(labels.max(initial=-1))


def find_npz_parts(path):
    """Lists the archives in a folder that `write_npz_parts` wrote.

    Args:
        path: `pathlib.Path` of the folder.

    Returns:
        A sorted list of paths such as `train-1-of-3.npz`.
    """
    return sorted(part for part in path.glob("*.npz") if _NAME.fullmatch(part.name))


def open_npz_parts(path, base, image_size=None):
    """Opens a dataset that `write_npz_parts` wrote.

    Args:
        path: folder with `<base>-1-of-<count>.npz` and so on.
        base: str, the split, such as "train".
        image_size: see `ImageDataset`.

    Returns:
        An `ArrayDataset`.

    Raises:
        ValueError: if the split is unknown, or a file is missing or damaged.
    """
    parts = [part for part in find_npz_parts(path) if _NAME.fullmatch(part.name)["split"] == base]
    if not parts:
        splits = sorted({_NAME.fullmatch(part.name)["split"] for part in find_npz_parts(path)})
        raise InputError(f"{path} has the splits {', '.join(splits)}. Received: split={base!r}")
    count = int(_NAME.fullmatch(parts[0].name)["count"])
    wanted = [path / f"{base}-{number}-of-{count}.npz" for number in range(1, count + 1)]
    if missing := [part.name for part in wanted if not part.exists()]:
        raise InputError(
            f"{path} lacks {', '.join(missing)} of the {count} parts of the split {base!r}. "
            f"Received: {', '.join(part.name for part in parts)}"
        )
    opened = [open_npz(part, base) for part in wanted]
    images = np.concatenate([dataset.load(np.arange(len(dataset))) for dataset in opened])
    labels = np.concatenate([dataset.labels for dataset in opened])
    return ArrayDataset(images, labels, opened[0].class_names, image_size, name=str(path))


def write_npz_parts(dataset, directory, base, limit=60e6):
    """Writes a dataset as archives of a limited size.

    Args:
        dataset: `ImageDataset`.
        directory: `pathlib.Path` of a folder that exists.
        base: str, the split, such as "train".
        limit: float, largest size of a file in bytes.

    Returns:
        A list of the paths written, `<base>-1-of-<count>.npz` and so on, each with the arrays
        `x_<base>`, `y_<base>` and `class_names`.

    Example:

    ```python
    write_npz_parts(open_dataset("cifar100", "train"), pathlib.Path("parts"), "train")
    ```
    """
    per_image = int(np.prod(dataset.image_shape)) + 8
    # Sized for images that do not compress, such as noise. 8 bytes hold a label, and 100 kB the
    # archive's headers and class names.
    count = -(-len(dataset) * per_image // int(limit - 100_000))
    paths = []
    for number, rows in enumerate(np.array_split(np.arange(len(dataset)), count), 1):
        paths.append(directory / f"{base}-{number}-of-{count}.npz")
        arrays = {f"x_{base}": dataset.load(rows), f"y_{base}": dataset.labels[rows]}
        np.savez_compressed(paths[-1], class_names=np.array(dataset.class_names), **arrays)
    return paths
