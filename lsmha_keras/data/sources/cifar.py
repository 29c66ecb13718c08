"""CIFAR-10 and CIFAR-100 as their authors distribute them."""

import dataclasses
import pathlib
import pickle
import tarfile
import weakref
import zlib

import numpy as np

from lsmha_keras.data.datasets import ArrayDataset
from lsmha_keras.errors import InputError

# The globals in a pickled array, under the names of NumPy 1 and 2.
_ALLOWED = {
    ("numpy", "ndarray"),
    ("numpy", "dtype"),
    ("numpy.core.multiarray", "_reconstruct"),
    ("numpy._core.multiarray", "_reconstruct"),
    ("_codecs", "encode"),  # bytes, in pickles that Python 3 wrote for Python 2
}
SPLITS = ("train", "test")


@dataclasses.dataclass(frozen=True)
class _Layout:
    folder: str
    archive: str
    files: dict
    label_key: bytes
    meta: str
    names_key: bytes


_LAYOUTS = {
    "cifar100": _Layout(
        "cifar-100-python",
        "cifar-100-python.tar.gz",
        {"train": ["train"], "test": ["test"]},
        b"fine_labels",
        "meta",
        b"fine_label_names",
    ),
    "cifar10": _Layout(
        "cifar-10-batches-py",
        "cifar-10-python.tar.gz",
        {"train": [f"data_batch_{n}" for n in range(1, 6)], "test": ["test_batch"]},
        b"labels",
        "batches.meta",
        b"label_names",
    ),
}


def find_cifar(name, data_dir):
    """Finds CIFAR's folder or archive.

    Args:
        name: "cifar10" or "cifar100".
        data_dir: folder that holds the folder or archive, or either one itself, or None.

    Returns:
        `pathlib.Path` of the folder or archive, or None if there is none.
    """
    if data_dir is None:
        return None
    layout, root = _LAYOUTS[name], pathlib.Path(data_dir)
    if root.name in (layout.folder, layout.archive) and root.exists():
        return root
    for candidate in (root / layout.folder, root / layout.archive):
        if candidate.exists():
            return candidate
    return None


def what_to_provide(name):
    """Names the files that `find_cifar` looks for.

    Args:
        name: "cifar10" or "cifar100".

    Returns:
        str, the end of a sentence in an error message.
    """
    layout = _LAYOUTS[name]
    return f": the folder {layout.folder} or the archive {layout.archive}"


def open_cifar(name, base, path, image_size=None):
    """Opens CIFAR-10 or CIFAR-100 (fine labels) from the original Python version.

    Args:
        name: "cifar10" or "cifar100".
        base: "train" or "test".
        path: the unpacked folder, or the .tar.gz archive, which is not unpacked to disk.
        image_size: see `ImageDataset`.

    Returns:
        An `ArrayDataset`.

    Raises:
        ValueError: if a file is missing, damaged or truncated, or is not the dataset's.
    """
    path = pathlib.Path(path)
    key = (path.resolve(), path.stat().st_mtime_ns, name, base)
    part = _PARTS_IN_USE.get(key)
    if part is None:
        _PARTS_IN_USE[key] = part = _read_part(_LAYOUTS[name], base, path)
    dataset = ArrayDataset(part.images, part.labels, part.names, image_size, name=name)
    dataset.part = part  # keeps it in `_PARTS_IN_USE`
    return dataset


@dataclasses.dataclass(eq=False)
class _Part:
    images: np.ndarray
    labels: list
    names: list


# train[:90%] and train[90%:] share one array, which is freed with the last dataset that uses it.
_PARTS_IN_USE: weakref.WeakValueDictionary = weakref.WeakValueDictionary()


def _read_part(layout, base, path):
    *contents, meta = _read_files(path, layout.folder, [*layout.files[base], layout.meta])
    images = [_field(content, b"data", path) for content in contents]
    labels = [label for content in contents for label in _field(content, layout.label_key, path)]
    names = [text.decode() for text in _field(meta, layout.names_key, path)]
    return _Part(_to_channels_last(images, path), labels, names)


def _to_channels_last(parts, path):
    for part in parts:
        if part.ndim != 2 or part.shape[1] != 3072 or part.dtype != np.uint8:
            raise InputError(
                f"{path} is not a CIFAR dataset: expected uint8 rows of 3072 values. "
                f"Received: shape={part.shape}, dtype={part.dtype}"
            )
    images = np.empty((sum(map(len, parts)), 32, 32, 3), dtype="uint8")
    start = 0
    for part in parts:
        images[start : start + len(part)] = part.reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1)
        start += len(part)
    return images


def _field(content, key, path):
    if not isinstance(content, dict) or key not in content:
        found = list(content) if isinstance(content, dict) else type(content).__name__
        raise InputError(
            f"{path} is not the CIFAR dataset that was asked for: expected the key "
            f"{key.decode()!r}. Received: {found}"
        )
    return content[key]


def _read_files(path, folder, names):
    """Unpickles the named files of a folder or of an archive."""
    file = path
    try:
        if path.is_dir():
            contents = []
            for file in (path / name for name in names):
                with file.open("rb") as stream:
                    contents.append(RestrictedUnpickler(stream).load())
            return contents
        with tarfile.open(path, "r:*") as archive:
            return [
                RestrictedUnpickler(archive.extractfile(f"{folder}/{name}")).load()
                for name in names
            ]
    except (EOFError, pickle.UnpicklingError, tarfile.TarError, zlib.error, OSError) as error:
        raise InputError(
            f"{file} is missing, damaged or truncated; expected the files {names} of the original "
            f"Python version of the dataset. Download it again. Received: {error}"
        ) from error
    except KeyError as error:
        raise InputError(f"{path} lacks a file of the dataset. Received: {error}") from error


class RestrictedUnpickler(pickle.Unpickler):
    """Unpickles built-in containers, strings, numbers and NumPy arrays, and nothing else.

    A pickle can call any function on loading; a downloaded one must not.

    Args:
        file: binary file.

    Raises:
        pickle.UnpicklingError: from `load`, if the pickle names any other class or function.

    Example:
        >>> import io, pickle
        >>> RestrictedUnpickler(io.BytesIO(pickle.dumps({"a": [1, 2]}))).load()
        {'a': [1, 2]}
    """

    def __init__(self, file):
        # Python 2 wrote the CIFAR files: their strings are bytes.
        super().__init__(file, encoding="bytes")

    def find_class(self, module, name):
        """Finds the few globals that rebuild an array, and refuses all others."""
        if (module, name) not in _ALLOWED:
            raise pickle.UnpicklingError(
                "only arrays, numbers, strings and containers are read from pickles. "
                f"Received: {module}.{name}"
            )
        return super().find_class(module, name)
