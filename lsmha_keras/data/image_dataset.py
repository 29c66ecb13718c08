"""Indexable labelled images."""

import abc
import copy

import numpy as np

from lsmha_keras.image_resize import resize_image


class ImageDataset(abc.ABC):
    """Labelled images that are read by index, whatever they are stored in.

    Only the labels and what `load` asks for are ever in memory as new arrays. Subclasses implement
    `_read(rows)`, which returns the stored images as a list or an array of `(height, width,
    channels)` uint8 images; resizing happens here.

    Args:
        labels: `(images,)` integers in `0 .. len(class_names) - 1`.
        class_names: list of str, one per label.
        stored_shape: `(height, width, channels)` of the stored images; height and width are None
            when they differ from image to image, and then `image_size` is needed.
        image_size: int or `(height, width)` to which images are resized (centre crop, antialiased,
            see `docs/data.md`); None keeps the stored size.
        name: str used in error messages.

    Raises:
        ValueError: if there are no images or a label is out of range.
    """

    def __init__(self, labels, class_names, stored_shape, image_size=None, name="dataset"):
        self.name = name
        self.class_names = [str(class_name) for class_name in class_names]
        self.labels = _check_labels(labels, len(self.class_names), name)
        self._rows = np.arange(len(self.labels))
        self.image_size = parse_image_size(image_size)
        if self.image_size is None and None in stored_shape:
            raise ValueError(
                f"The images of {name!r} have different sizes, so `image_size` is needed to bring "
                "them to one. Received: image_size=None"
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
        """Returns a dataset of the same images, restricted to `indices`, that shares storage.

        Args:
            indices: `(n,)` integers, a slice, or a boolean mask.

        Returns:
            An `ImageDataset`.

        Raises:
            ValueError: if nothing is left.
        """
        part = copy.copy(self)
        part._rows = self._rows[indices]
        part.labels = self.labels[indices]
        if len(part.labels) == 0:
            raise ValueError(
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
        ValueError: for anything else.
    """
    if image_size is None:
        return None
    size = (image_size, image_size) if isinstance(image_size, int) else tuple(image_size)
    if len(size) != 2 or not all(isinstance(side, int) and side > 0 for side in size):
        raise ValueError(
            "`image_size` must be a positive int or a pair (height, width) of them. "
            f"Received: image_size={image_size!r}"
        )
    return size


def _check_labels(labels, num_classes, name):
    labels = np.asarray(labels)
    if labels.size == 0:
        raise ValueError(f"{name!r} holds no images; expected at least one. Received: 0 images")
    if labels.ndim == 2 and labels.shape[1] == 1:  # Keras's CIFAR arrays have shape (n, 1)
        labels = labels[:, 0]
    if labels.ndim != 1 or not np.issubdtype(labels.dtype, np.integer):
        raise ValueError(
            f"The labels of {name!r} must be a vector of integers. "
            f"Received: shape={labels.shape}, dtype={labels.dtype}"
        )
    if labels.min() < 0 or labels.max() >= num_classes:
        raise ValueError(
            f"The labels of {name!r} must be in 0 .. {num_classes - 1}, as there are "
            f"{num_classes} classes. Received: labels from {labels.min()} to {labels.max()}"
        )
    return labels.astype("int32")
