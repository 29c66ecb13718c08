"""Labelled images with random access."""

import abc
import copy

import numpy as np

from lsmha_keras.errors import InputError
from lsmha_keras.images import resize_image


class ImageDataset(abc.ABC):
    """Labelled images with random access, whatever they are stored in.

    This class holds the labels; images are read, and resized, when `load` asks for them. Subclasses
    implement `_read(rows)`, which returns the stored images as a list or an array of `(height,
    width, channels)` uint8 images.

    Args:
        labels: `(images,)` integers in `0 .. len(class_names) - 1`.
        class_names: list of str, one per class.
        stored_shape: `(height, width, channels)` of the stored images. Height and width are None
            if they differ between images; `image_size` is then required.
        image_size: int or `(height, width)` to which images are resized (centre crop, antialiased,
            see `docs/data.md`); None keeps the stored size.
        name: str, used in error messages.

    Raises:
        ValueError: if there are no images or a label is out of range.
    """

    dtype = np.dtype("uint8")  # of what `load` returns

    def __init__(self, labels, class_names, stored_shape, image_size=None, name="dataset"):
        self.name = name
        self.class_names = [str(class_name) for class_name in class_names]
        self.labels = check_labels(labels, len(self.class_names), name)
        self._rows = np.arange(len(self.labels))
        self.image_size = parse_image_size(image_size)
        if self.image_size is None and None in stored_shape:
            raise InputError(
                f"The images of {name!r} have different sizes, so `image_size` must say which size "
                "to resize them to. Received: image_size=None"
            )
        self.image_shape = (*(self.image_size or stored_shape[:2]), stored_shape[2])

    def __len__(self):
        return len(self.labels)

    def __repr__(self):
        return (
            f"<{type(self).__name__} {self.name!r}: {len(self)} images {self.image_shape}, "
            f"{len(self.class_names)} classes>"
        )

    def load(self, indices):
        """Reads images.

        Args:
            indices: `(n,)` integers in `0 .. len(self) - 1`.

        Returns:
            `(n, height, width, channels)` uint8 array.
        """
        images = self._read(self._rows[np.asarray(indices, dtype="int64")])
        height, width, channels = self.image_shape
        if isinstance(images, np.ndarray) and images.shape[1:] == self.image_shape:
            return images
        resized = np.empty((len(images), height, width, channels), dtype="uint8")
        for row, image in enumerate(images):
            resized[row] = resize_image(image, (height, width))
        return resized

    def select(self, indices):
        """Returns the dataset restricted to `indices`; the images are not copied.

        Args:
            indices: `(n,)` integers, a slice, or a boolean mask.

        Returns:
            An `ImageDataset`.

        Raises:
            ValueError: if the selection is empty.
        """
        part = copy.copy(self)
        part._rows = self._rows[indices]
        part.labels = self.labels[indices]
        if len(part.labels) == 0:
            raise InputError(
                f"The selected part of {self.name!r} is empty; expected at least one image. "
                f"Received: 0 of {len(self)} images"
            )
        return part

    @abc.abstractmethod
    def _read(self, rows):
        """Returns the stored uint8 images of `rows`, each `(height, width, channels)`."""


def parse_image_size(image_size):
    """Returns `(height, width)`, or None for None.

    Args:
        image_size: None, an int, or a pair of ints.

    Returns:
        None or a tuple of two ints.

    Raises:
        ValueError: if `image_size` is something else, or not positive.
    """
    if image_size is None:
        return None
    size = (image_size, image_size) if isinstance(image_size, int) else tuple(image_size)
    if len(size) != 2 or not all(isinstance(side, int) and side > 0 for side in size):
        raise InputError(
            "`image_size` must be a positive int or a pair (height, width) of them. "
            f"Received: image_size={image_size!r}"
        )
    return size


def check_labels(labels, num_classes, name):
    """Returns labels as an int32 vector.

    Args:
        labels: `(n,)` or `(n, 1)` integers.
        num_classes: int.
        name: str, of the dataset, for the message.

    Raises:
        ValueError: if there are none, they are no integers, or one is not of `num_classes` classes.
    """
    labels = np.asarray(labels)
    if labels.size == 0:
        raise InputError(f"{name!r} holds no images; expected at least one. Received: 0 images")
    if labels.ndim == 2 and labels.shape[1] == 1:  # Keras's CIFAR arrays have shape (n, 1)
        labels = labels[:, 0]
    if labels.ndim != 1 or not np.issubdtype(labels.dtype, np.integer):
        raise InputError(
            f"The labels of {name!r} must be a vector of integers. "
            f"Received: shape={labels.shape}, dtype={labels.dtype}"
        )
    if labels.min() < 0 or labels.max() >= num_classes:
        raise InputError(
            f"The labels of {name!r} must be in 0 .. {num_classes - 1}, as there are "
            f"{num_classes} classes. Received: labels from {labels.min()} to {labels.max()}"
        )
    return labels.astype("int32")


class ArrayDataset(ImageDataset):
    """Images in one uint8 array, which is not copied.

    Args:
        images: `(images, height, width)` or `(images, height, width, channels)` with 1 or 3
            channels. Types other than uint8 are converted if every value is a whole number in
            0 .. 255.
        labels: `(images,)` integers.
        class_names: list of str, or None for `"0", "1", ...` up to the largest label.
        image_size: see `ImageDataset`.
        name: str, used in error messages.

    Raises:
        ValueError: if the numbers of images and labels differ, the images have another shape, or
            a value is not a whole number in 0 .. 255.

    Example:
        >>> import numpy as np
        >>> images = np.zeros((4, 8, 8, 3), dtype="uint8")
        >>> dataset = ArrayDataset(images, [0, 1, 1, 0], class_names=["cat", "dog"], image_size=16)
        >>> dataset.load([1, 3]).shape
        (2, 16, 16, 3)
    """

    def __init__(self, images, labels, class_names=None, image_size=None, name="arrays"):
        images = _check_images(np.asarray(images), name)
        if len(images) != len(labels):
            raise InputError(
                f"{name!r} must have one label for each image. "
                f"Received: {len(images)} images, {len(labels)} labels"
            )
        if class_names is None:
            class_names = range(int(np.max(labels, initial=-1)) + 1)
        super().__init__(labels, class_names, images.shape[1:], image_size, name)
        self._images = images

    def _read(self, rows):
        return self._images[rows]


def _check_images(images, name):
    if images.ndim == 3:
        images = images[..., None]
    if images.ndim != 4 or images.shape[-1] not in (1, 3):
        raise InputError(
            f"The images of {name!r} must have shape (images, height, width) or (images, height, "
            f"width, channels) with 1 or 3 channels. Received: shape={images.shape}"
        )
    if images.dtype == np.uint8 or images.size == 0:
        return images
    whole = np.issubdtype(images.dtype, np.integer) or np.array_equal(images, np.rint(images))
    if not whole or images.min() < 0 or images.max() > 255:
        raise InputError(
            f"The images of {name!r} must be uint8, or whole numbers in 0 .. 255 (multiply images "
            "in 0 .. 1 by 255 and round them). "
            f"Received: dtype={images.dtype}, values from {images.min()} to {images.max()}"
        )
    if images.max() <= 1 and not np.issubdtype(images.dtype, np.integer):
        raise InputError(
            f"The images of {name!r} look like fractions in 0 .. 1, not grey levels in 0 .. 255: "
            f"multiply them by 255. Received: dtype={images.dtype}, largest value {images.max():g}"
        )
    return images.astype("uint8")


class ConcatenatedDataset(ImageDataset):
    """Several datasets joined into one, for splits such as `"train+test"`.

    Args:
        parts: list of `ImageDataset` with equal image shapes and class names.

    Raises:
        ValueError: if shapes or class names differ.
    """

    def __init__(self, parts):
        first = parts[0]
        for part in parts[1:]:
            if part.image_shape != first.image_shape or part.class_names != first.class_names:
                raise InputError(
                    "Parts of one dataset must have equal image shapes and class names. "
                    f"Received: {first!r} and {part!r}"
                )
        labels = np.concatenate([part.labels for part in parts])
        super().__init__(labels, first.class_names, first.image_shape, name=first.name)
        self._parts = parts
        self._starts = np.cumsum([0] + [len(part) for part in parts])

    def _read(self, rows):
        images = np.empty((len(rows), *self.image_shape), dtype="uint8")
        for part, start in zip(self._parts, self._starts[:-1], strict=True):
            inside = (rows >= start) & (rows < start + len(part))
            if inside.any():
                images[inside] = part.load(rows[inside] - start)
        return images
