"""Opens a dataset by name."""

import os
import pathlib

from lsmha_keras.data.concatenated_dataset import ConcatenatedDataset
from lsmha_keras.data.sources import (
    cifar,
    digits,
    image_folder,
    npz_archive,
    npz_parts,
    tfds_dataset,
)
from lsmha_keras.data.split import parse_split
from lsmha_keras.nearest import nearest

BUILT_IN = ("digits", "cifar10", "cifar100")


def open_dataset(name, split="train", data_dir=None, image_size=None):
    """Opens labelled images for reading by index.

    Args:
        name: one of
            * "digits": scikit-learn's 1,797 handwritten digits, as 32x32x3, split once and for
              all into 1,437 "train" and 360 "test" images;
            * "cifar10", "cifar100": the folder (`cifar-100-python`, `cifar-10-batches-py`) or the
              `.tar.gz` of the original Python version in `data_dir`, else TensorFlow Datasets;
            * a folder of class folders of images, or of `train`, `test`, ... each with them;
            * a folder of `.npz` parts named like `train-1-of-3.npz`, `test-1-of-1.npz`; in
              `data_dir` it may have the name of a dataset, and takes its place;
            * an `.npz` file with `x_train, y_train, x_test, y_test`, or `x, y`;
            * any name of TensorFlow Datasets.
        split: what to take: "train", "test", or a range such as "train[:90%]", "train[90%:]",
            "train[:1000]"; several joined by "+".
        data_dir: folder that holds the data. Default: the environment variable LSMHA_DATA_DIR.
            Relative folder and file names are looked up here, too.
        image_size: int or `(height, width)` to resize to; None keeps the stored size.

    Returns:
        An `ImageDataset`: `len()`, `.labels` (int32), `.class_names`, `.image_shape`, and
        `.load(indices)`, which returns uint8 images.

    Raises:
        ValueError: if the dataset or the split is unknown, or the files are not what was expected.
        ImportError: if an optional package that the dataset needs is not installed.

    Example:
        >>> import lsmha_keras as lsmha
        >>> dataset = lsmha.open_dataset("digits", "train[:10%]")
        >>> dataset.load([0, 1]).shape
        (2, 32, 32, 3)
    """
    terms = parse_split(split)
    data_dir = data_dir or os.environ.get("LSMHA_DATA_DIR") or None
    open_base = _opener(os.fspath(name), data_dir, image_size)
    bases = {}
    parts = []
    for term in terms:
        if term.base not in bases:
            bases[term.base] = open_base(term.base)
        dataset = bases[term.base]
        parts.append(dataset.select(term.slice(len(dataset))))
    return parts[0] if len(parts) == 1 else ConcatenatedDataset(parts)


def _opener(name, data_dir, image_size):
    """Returns a function from the name of a part, such as "train", to its dataset."""
    if name == "digits":
        return lambda base: digits.open_digits(_check(name, base, digits.SPLITS), image_size)
    hint = ""
    if name in ("cifar10", "cifar100"):
        hint = cifar.what_to_provide(name)
        path = cifar.find_cifar(name, data_dir)
        if path is not None:
            return lambda base: cifar.open_cifar(
                name, _check(name, base, cifar.SPLITS), path, image_size
            )
    path = _existing_path(name, data_dir)
    if path is not None and path.is_dir() and npz_parts.find_npz_parts(path):
        return lambda base: npz_parts.open_npz_parts(path, base, image_size)
    if path is not None and path.is_dir():
        return lambda base: image_folder.open_image_folder(path, base, image_size)
    if path is not None and path.suffix == ".npz":
        return lambda base: npz_archive.open_npz(path, base, image_size)
    is_path = os.sep in name and not tfds_dataset.is_configuration(name)
    if path is not None or is_path or name.endswith(".npz"):
        raise ValueError(
            "A dataset must be a known name, a folder of class folders, or an .npz file. "
            f"Received: name={name!r}, which is {'another file' if path else 'no file or folder'}"
        )
    return lambda base: tfds_dataset.open_tfds(name, base, data_dir, image_size, BUILT_IN, hint)


def _existing_path(name, data_dir):
    for path in (pathlib.Path(name), pathlib.Path(data_dir or ".") / name):
        if path.exists() and not _is_tfds_folder(path):
            return path
    return None


def _is_tfds_folder(path):
    # <name>/<version>/ or <name>/<configuration>/<version>/, where TFDS keeps a prepared dataset.
    patterns = ("*/dataset_info.json", "*/*/dataset_info.json")
    return path.is_dir() and any(next(path.glob(pattern), None) for pattern in patterns)


def _check(name, base, splits):
    if base not in splits:
        raise ValueError(
            f"{name!r} has the splits {', '.join(splits)}{nearest(base, splits)}. "
            f"Received: split={base!r}"
        )
    return base
