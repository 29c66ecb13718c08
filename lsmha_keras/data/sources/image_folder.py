"""Folders of class folders of image files."""

import pathlib

import numpy as np

from lsmha_keras.data.datasets import ImageDataset
from lsmha_keras.errors import InputError, nearest
from lsmha_keras.files import is_hidden
from lsmha_keras.image_file import EXTENSIONS, find_images, read_image

_PARTS = ("train", "test", "val", "valid", "validation")


class ImageFolder(ImageDataset):
    """Image files, read on demand and converted to RGB by Pillow.

    Args:
        paths: list of files.
        labels: `(files,)` integers.
        class_names: list of str.
        image_size: int or `(height, width)` to resize to; None means the size of the first image.
        name: str, used in error messages.
    """

    def __init__(self, paths, labels, class_names, image_size=None, name="folder"):
        if image_size is None and paths:
            image_size = read_image(paths[0]).shape[:2]
        super().__init__(labels, class_names, (None, None, 3), image_size, name)
        self._paths = np.array([str(path) for path in paths])

    def _read(self, rows):
        return [read_image(path, self.image_shape[:2]) for path in self._paths[rows]]


def open_image_folder(root, base, image_size=None):
    """Opens a folder with one sub-folder of images for each class.

    Sub-folders named train, test, val, valid or validation are the parts of the dataset if they
    hold class folders; one that holds images is a class like any other. Without parts, the whole
    folder is the part "train". Hidden files and folders are ignored, and so are those that systems,
    archives and notebooks leave behind (`._0.png`, `.DS_Store`, `__MACOSX`).

    Classes are in alphabetical order. Files are in the order of their names, with the classes
    interleaved, so that every range such as `train[90%:]` holds each class in proportion.

    Args:
        root: path of the folder.
        base: str, the part.
        image_size: int or `(height, width)` to resize to; None means the size of the first image.

    Returns:
        An `ImageFolder`.

    Raises:
        ValueError: if the part does not exist, holds no class folders with images or has a class
            that the training images lack, or a folder named like a part holds both images and
            class folders.
    """
    root = pathlib.Path(root)
    parts = _find_parts(root)
    if parts:
        if base not in parts:
            raise InputError(
                f"The folder {root} has the splits {', '.join(parts)}{nearest(base, parts)}. "
                f"Received: split={base!r}"
            )
    elif base != "train":
        raise InputError(
            f"The folder {root} has no sub-folder {base!r}; as a folder of class folders it is "
            f"one part, of which 'train[:80%]' and 'train[80%:]' are ranges. "
            f"Received: split={base!r}"
        )
    # All parts must number the classes alike: as the training images do.
    reference = root / parts[0] if parts else root
    classes = sorted(path.name for path in _folders(reference))
    part = root / base if parts else root
    extra = sorted({path.name for path in _folders(part)} - set(classes))
    if extra:
        raise InputError(
            f"{part} has classes that {reference} lacks. Received: {', '.join(extra[:5])}"
        )
    files, labels = _interleave([find_images(part / name) for name in classes])
    if not files:
        raise InputError(
            f"{part} must hold one folder of images ({', '.join(EXTENSIONS)}) for each class. "
            f"Received: {len(classes)} folders, no images"
        )
    return ImageFolder(files, labels, classes, image_size, name=str(root))


def _folders(path):
    return [sub for sub in path.iterdir() if sub.is_dir() and not is_hidden(sub.name)]


def _find_parts(root):
    """Lists the sub-folders that are parts: those with class folders, not images, inside."""
    parts = []
    for name in _PARTS:
        folder = root / name
        if not folder.is_dir():
            continue
        own = [path for path in find_images(folder) if path.parent == folder]
        classes = [sub for sub in _folders(folder) if find_images(sub)]
        if own and classes:
            raise InputError(
                f"{folder} can be a part of the data, which holds class folders only, or a class, "
                f"which holds images only: move the images or the folders away. Received: both "
                f"{own[0].name} and the folder {classes[0].name}"
            )
        if not own:
            parts.append(name)
    return parts


def _interleave(files_by_class):
    keyed = [
        ((position + 0.5) / len(files), label, path)
        for label, files in enumerate(files_by_class)
        for position, path in enumerate(files)
    ]
    keyed.sort(key=lambda entry: entry[:2])
    labels = np.array([label for _, label, _ in keyed], dtype="int32")
    return [path for _, _, path in keyed], labels
