"""Opens a dataset, or a split of it, by name."""

from __future__ import annotations

import dataclasses
import importlib.util
import os
import pathlib
import re
from collections.abc import Sequence

from lsmha_keras import presets
from lsmha_keras.data.datasets import ConcatenatedDataset, ImageDataset
from lsmha_keras.data.sequences import SequenceDataset
from lsmha_keras.data.sources import (
    cifar,
    digits,
    image_folder,
    npz,
    pulses,
    series_csv,
    tfds_dataset,
)
from lsmha_keras.data.sources import text as texts
from lsmha_keras.errors import ImageSizeError, InputError, nearest
from lsmha_keras.image_file import find_images
from lsmha_keras.types import PathLike

_TERM = re.compile(r"^(?P<base>[\w.-]+)(?:\[(?P<start>[^:\]]*):(?P<stop>[^:\]]*)\])?$")
_BOUND = re.compile(r"^-?\d+%?$")
BUILT_IN = ("digits", "digits_series", "pulses", "cifar10", "cifar100", *texts.KNOWN)


def open_dataset(
    name: PathLike,
    split: str = "train",
    data_dir: PathLike | None = None,
    image_size: int | Sequence[int] | None = None,
) -> ImageDataset:
    """Opens labelled images, texts or series for reading by index.

    Args:
        name: one of
            * "digits": scikit-learn's 1,797 handwritten digits, as 32x32x3, split once and for
              all into 1,437 "train" and 360 "test" images;
            * "cifar10", "cifar100": the folder (`cifar-100-python`, `cifar-10-batches-py`) or the
              `.tar.gz` of the original Python version in `data_dir`, else TensorFlow Datasets;
            * a folder of class folders of images, or of `train`, `test`, ... each with them;
            * a folder of `.npz` parts named like `train-1-of-3.npz`, `test-1-of-1.npz`; in
              `data_dir` it may have the name of a dataset, and takes its place;
            * an `.npz` file with `x_train, y_train, x_test, y_test`, or `x, y`; for series
              `(series, time, features)`, `series_train` and so on in place of `x_train`;
            * "trec" (6 classes), "trec_fine" (50) and "sst2": questions and sentences in a folder
              `trec` or `sst2`, or `text/trec`, of `data_dir`, with `train.csv` and `test.csv`;
            * a `.csv` file with the columns `label` and `text`, or a folder of them, one a split;
            * the same of series, a line for each time step, with the columns `series`, `label` and
              the features;
            * a folder of class folders of `.txt` files, or of `train`, `test`, ... each with them;
            * "digits_series": the digits as 8 time steps of 8 features;
            * "pulses": made-up series of 32 time steps of 2 features, in 4 classes by the order and
              the distance of a pulse in each;
            * any name of TensorFlow Datasets of images, or of texts in a feature `text` or
              `sentence`.
        split: "train", "test", or a range such as "train[:90%]", "train[90%:]", "train[:1000]";
            several joined by "+".
        data_dir: folder that holds the data. Default: the environment variable LSMHA_DATA_DIR.
            Relative folder and file names are looked up here, too.
        image_size: int or `(height, width)` to resize to; None keeps the stored size.

    Returns:
        An `ImageDataset`: `len()`, `.labels` (int32), `.class_names`, `.image_shape`, and
        `.load(indices)`, which returns uint8 images. For texts and series a `SequenceDataset`,
        whose `load` returns an array of str or of float32.

    Raises:
        ValueError: if the dataset or the split is unknown, or a file is damaged or not in the
            format described above.
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
    if len(parts) == 1:
        return parts[0]
    if isinstance(parts[0], SequenceDataset):
        return SequenceDataset.joined(parts)
    return ConcatenatedDataset(parts)


def _opener(name, data_dir, image_size):
    """Returns a function that opens a part of the dataset, such as "train"."""
    if name == "digits":
        return lambda base: digits.open_digits(_check(name, base, digits.SPLITS), image_size)
    if name == "digits_series":
        return lambda base: digits.open_digits_series(_check(name, base, digits.SPLITS))
    if name == "pulses":
        return lambda base: pulses.open_pulses(_check(name, base, pulses.SPLITS))
    hint = ""
    if name in texts.KNOWN:
        hint = texts.what_to_provide(name)
        folder = texts.find_text(name, data_dir)
        if folder is not None:
            return lambda base: texts.open_known_text(name, folder, base)
    if name in ("cifar10", "cifar100"):
        hint = cifar.what_to_provide(name)
        path = cifar.find_cifar(name, data_dir)
        if path is not None:
            return lambda base: cifar.open_cifar(
                name, _check(name, base, cifar.SPLITS), path, image_size
            )
    path = _existing_path(name, data_dir)
    if path is not None and path.is_dir() and npz.find_npz_parts(path):
        return lambda base: npz.open_npz_parts(path, base, image_size)
    if path is not None and (path.suffix == ".csv" or _holds(path, texts.find_csv_parts)):
        if series_csv.is_series_csv(path):
            return lambda base: series_csv.open_series_csv(path, base)
        return lambda base: texts.open_csv(path, base)
    if path is not None and _holds(path, texts.find_text_folder):
        return lambda base: texts.open_text_folder(path, base)
    if path is not None and path.is_dir():
        return lambda base: image_folder.open_image_folder(path, base, image_size)
    if path is not None and path.suffix == ".npz":
        return lambda base: npz.open_npz(path, base, image_size)
    is_path = os.sep in name and not tfds_dataset.is_configuration(name)
    if path is not None or is_path or name.endswith((".npz", ".csv")):
        raise InputError(
            "A dataset must be a known name, a folder of class folders, or an .npz or .csv file. "
            f"Received: name={name!r}, which is {'another file' if path else 'no file or folder'}"
        )
    return lambda base: tfds_dataset.open_tfds(name, base, data_dir, image_size, BUILT_IN, hint)


def _holds(path, find_texts):
    """Returns whether a folder holds texts. Beside images, texts are tables or notes about them."""
    return path.is_dir() and find_texts(path) and not find_images(path)


def _existing_path(name, data_dir):
    for path in (pathlib.Path(name), pathlib.Path(data_dir or ".") / name):
        if path.exists() and not _is_tfds_folder(path):
            return path
    return None


def _is_tfds_folder(path):
    # TFDS keeps a prepared dataset in <name>/<version>/ or <name>/<configuration>/<version>/.
    patterns = ("*/dataset_info.json", "*/*/dataset_info.json")
    return path.is_dir() and any(next(path.glob(pattern), None) for pattern in patterns)


def _check(name, base, splits):
    if base not in splits:
        raise InputError(
            f"{name!r} has the splits {', '.join(splits)}{nearest(base, splits)}. "
            f"Received: split={base!r}"
        )
    return base


def model_image_size(model_or_name):
    """Returns a model's input size; a preset is not loaded for it.

    Args:
        model_or_name: a `CCTImageClassifier`, a `SoftCommittee` (its largest member counts),
            another Keras model that takes images, or a preset's name or directory.

    Returns:
        `(height, width)`; for series and texts their length, `(time,)`.

    Raises:
        ValueError: if the preset is unknown.

    Example:
        >>> model_image_size("cct_7_7x2")
        (224, 224)
    """
    if not isinstance(model_or_name, (str, os.PathLike)):
        shape = getattr(model_or_name, "image_shape", None) or model_or_name.input_shape[1:]
        return tuple(shape[:2]) if len(shape) == 3 else tuple(shape[:1])
    source = presets.resolve_preset(model_or_name)
    if presets.is_committee(source):
        return max(model_image_size(path) for path in presets.read_committee(source)["members"])
    config = presets.read_config(model_or_name)
    if "sequence_length" in config:
        return (config["sequence_length"],)
    return tuple(config["image_shape"][:2])


def open_dataset_for_model(name, split, data_dir, image_size, model_size):
    """Opens a dataset; images of mixed sizes are resized to the model's input size.

    `open_dataset` would resize a folder's images to the size of the first one, which may differ
    between splits.

    Args:
        name: as for `open_dataset`.
        split: as for `open_dataset`.
        data_dir: folder that holds the data, or None.
        image_size: int or `(height, width)` to resize to in any case, or None.
        model_size: function without arguments that returns the model's `(height, width)`. It is
            called only when needed, as it may load a model.

    Returns:
        An `ImageDataset`.

    Raises:
        ValueError: if the dataset or the split is unknown.

    Example:

    ```python
    source = open_dataset_for_model("pictures.npz", "test", None, None, lambda: (32, 32))
    ```
    """
    try:
        source = open_dataset(name, split, data_dir, image_size=image_size)
    except ImageSizeError:
        return open_dataset(name, split, data_dir, image_size=model_size())
    if image_size is None and _is_folder(source, name, split, data_dir):
        return open_dataset(name, split, data_dir, image_size=model_size())
    return source


def _is_folder(source, name, split, data_dir):
    if "+" in split:
        # All terms of a split come from one source: the first one tells its kind.
        source = open_dataset(name, split.partition("+")[0], data_dir)
    return isinstance(source, image_folder.ImageFolder)


def can_open_offline(name, data_dir=None):
    """Returns whether a dataset can be opened without a download.

    Args:
        name: as for `open_dataset`.
        data_dir: folder that holds the data. Default: the environment variable LSMHA_DATA_DIR.

    Returns:
        bool.

    Example:
        >>> can_open_offline("no_such_file.npz")
        False
    """
    name = os.fspath(name)
    data_dir = data_dir or os.environ.get("LSMHA_DATA_DIR") or None
    if name in ("digits", "digits_series"):  # part of scikit-learn
        return importlib.util.find_spec("sklearn") is not None
    if name == "pulses":
        return True
    if name in ("cifar10", "cifar100") and cifar.find_cifar(name, data_dir):
        return True
    if name in texts.KNOWN and texts.find_text(name, data_dir):
        return True
    # TensorFlow Datasets keeps `mnist:3.0.1` in `mnist/3.0.1`.
    folder = pathlib.Path(data_dir or ".") / name.partition(":")[0]
    return pathlib.Path(name).exists() or folder.exists()


@dataclasses.dataclass(frozen=True)
class Split:
    """One term of a split expression: a named part and a range of it.

    Args:
        base: name of the part, such as "train".
        start: str such as "10%", "-500" or "" (from the beginning).
        stop: the same for the end (exclusive).
    """

    base: str
    start: str = ""
    stop: str = ""

    def slice(self, count):
        """Returns the slice that this term selects from `count` images.

        Args:
            count: number of images in the named part.

        Returns:
            A `slice`.
        """
        start = _position(self.start, count) if self.start else 0
        stop = _position(self.stop, count) if self.stop else count
        return slice(min(start, count), min(stop, count))


def parse_split(split):
    """Parses a split expression.

    Args:
        split: str: the name of a part ("train"), a range of it in percent or images
            ("train[:90%]", "train[-500:]"), or several of these joined by "+".

    Returns:
        A list of `Split`.

    Raises:
        ValueError: if it cannot be parsed.

    Example:
        >>> parse_split("train[10%:]")[0].slice(50)
        slice(5, 50, None)
    """
    terms = []
    for text in split.split("+") if isinstance(split, str) else [split]:
        match = _TERM.match(text.strip()) if isinstance(text, str) else None
        bounds = [match[key] or "" for key in ("start", "stop")] if match else ["?"]
        bounds = [bound.strip() for bound in bounds]
        if not all(bound == "" or _BOUND.match(bound) for bound in bounds):
            raise InputError(
                "`split` must look like 'train', 'train[:90%]', 'train[90%:]', 'train[:1000]' or "
                f"several of them joined by '+'. Received: split={split!r}"
            )
        terms.append(Split(match["base"], *bounds))
    return terms


def _position(bound, count):
    if bound.endswith("%"):
        # Rounded to the nearest image, as TFDS does.
        position = int(round(int(bound[:-1]) * count / 100.0))
    else:
        position = int(bound)
    return max(0, position + count if position < 0 else position)
