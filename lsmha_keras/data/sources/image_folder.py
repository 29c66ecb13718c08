"""Folders of class folders of image files."""

import pathlib

import numpy as np

from lsmha_keras.data.image_dataset import ImageDataset
from lsmha_keras.data.suggest import nearest

EXTENSIONS = (".bmp", ".gif", ".jpeg", ".jpg", ".png", ".ppm", ".tif", ".tiff", ".webp")
_PARTS = ("train", "test", "val", "valid", "validation")


class ImageFolder(ImageDataset):
    """Image files, read and converted to RGB with Pillow when they are asked for.

    Args:
        paths: list of files.
        labels: `(files,)` integers.
        class_names: list of str.
        image_size: int or `(height, width)`; None takes the size of the first image, and images
            of another size are then resized to it.
        name: str used in error messages.
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

    A folder with sub-folders named train, test, val, valid or validation is taken as parts, each
    with its class folders. Otherwise the folder is one part, "train". Classes are in alphabetical
    order. Files are taken in the order of their names, the classes interleaved in proportion to
    their sizes, so that each range such as `train[90%:]` holds every class in proportion.

    Args:
        root: the folder.
        base: name of the part.
        image_size: int or `(height, width)`; None takes the first image's size.

    Returns:
        An `ImageFolder`.

    Raises:
        ValueError: if the part does not exist or holds no class folders with images.
    """
    root = pathlib.Path(root)
    parts = [name for name in _PARTS if (root / name).is_dir()]
    if parts:
        if base not in parts:
            raise ValueError(
                f"The folder {root} has the splits {', '.join(parts)}{nearest(base, parts)} "
                f"Received: split={base!r}"
            )
    elif base != "train":
        raise ValueError(
            f"The folder {root} has no sub-folder {base!r}; as a folder of class folders it is "
            f"one part, of which 'train[:80%]' and 'train[80%:]' are ranges. "
            f"Received: split={base!r}"
        )
    # All parts share one list of classes: the one of the training images.
    reference = root / parts[0] if parts else root
    classes = sorted(path.name for path in reference.iterdir() if _is_class(path))
    part = root / base if parts else root
    extra = sorted({path.name for path in part.iterdir() if _is_class(path)} - set(classes))
    if extra:
        raise ValueError(
            f"{part} has classes that {reference} lacks. Received: {', '.join(extra[:5])}"
        )
    files, labels = _interleave([_images(part / name) for name in classes])
    if not files:
        raise ValueError(
            f"{part} must hold one folder of images ({', '.join(EXTENSIONS)}) for each class. "
            f"Received: {len(classes)} folders, no images"
        )
    return ImageFolder(files, labels, classes, image_size, name=str(root))


def read_image(path, size=None):
    """Reads an image file as RGB, upright as its EXIF orientation says.

    Args:
        path: file.
        size: `(height, width)` to resize to, or None.

    Returns:
        `(height, width, 3)` uint8.

    Raises:
        ValueError: if the file is missing or not a sound image.
    """
    from PIL import Image, ImageOps

    try:
        with Image.open(path) as image:
            if size is not None:
                # Lets the JPEG decoder skip detail that the resize would throw away.
                image.draft("RGB", (2 * max(size), 2 * max(size)))
            image = ImageOps.exif_transpose(image).convert("RGB")
            if size is not None and image.size != (size[1], size[0]):
                image = image.resize((size[1], size[0]), Image.Resampling.BILINEAR)
            return np.asarray(image)
    except (OSError, SyntaxError, Image.DecompressionBombError) as error:
        raise ValueError(f"{path} is not a sound image file. Received: {error}") from error


def _is_class(path):
    return path.is_dir() and not path.name.startswith(".")


def _images(folder):
    if not folder.is_dir():
        return []
    return sorted(path for path in folder.rglob("*") if path.suffix.lower() in EXTENSIONS)


def _interleave(files_by_class):
    keyed = [
        ((position + 0.5) / len(files), label, path)
        for label, files in enumerate(files_by_class)
        for position, path in enumerate(files)
    ]
    keyed.sort(key=lambda entry: entry[:2])
    labels = np.array([label for _, label, _ in keyed], dtype="int32")
    return [path for _, _, path in keyed], labels
