"""Images in one array in memory."""

import numpy as np

from lsmha_keras.data.image_dataset import ImageDataset


class ArrayDataset(ImageDataset):
    """Images held as one uint8 array; no other copy of them is made.

    Args:
        images: `(images, height, width)` or `(images, height, width, channels)`. Stored as uint8;
            other types are accepted when every value is a whole number in 0 .. 255.
        labels: `(images,)` integers.
        class_names: list of str, or None for `"0", "1", ...` up to the largest label.
        image_size: see `ImageDataset`.
        name: str used in error messages.

    Raises:
        ValueError: if images and labels differ in number, the rank or the number of channels is
            wrong, or the values are not whole numbers in 0 .. 255.

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
            raise ValueError(
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
        raise ValueError(
            f"The images of {name!r} must have shape (images, height, width) or (images, height, "
            f"width, channels) with 1 or 3 channels. Received: shape={images.shape}"
        )
    if images.dtype == np.uint8 or images.size == 0:
        return images
    whole = np.issubdtype(images.dtype, np.integer) or np.array_equal(images, np.rint(images))
    if not whole or images.min() < 0 or images.max() > 255:
        raise ValueError(
            f"The images of {name!r} must be uint8, or whole numbers in 0 .. 255 (multiply images "
            "in 0 .. 1 by 255 and round them). "
            f"Received: dtype={images.dtype}, values from {images.min()} to {images.max()}"
        )
    if images.max() <= 1 and not np.issubdtype(images.dtype, np.integer):
        raise ValueError(
            f"The images of {name!r} look like fractions of 1 instead of grey levels in 0 .. 255; "
            f"multiply them by 255. Received: dtype={images.dtype}, largest value {images.max():g}"
        )
    return images.astype("uint8")
