"""Resizes images, in the same way everywhere."""

import numpy as np


def resize_to_fit(image, size):
    """Resizes the largest centred part of a Pillow image that has the proportions of `size`.

    Nothing is stretched, and shrinking averages over all pixels, with Pillow's triangle filter
    (bilinear, antialiased). It computes with integers: results do not depend on the machine.

    Args:
        image: `PIL.Image.Image` with 8 bits per channel.
        size: `(height, width)`.

    Returns:
        A `PIL.Image.Image`; `image` itself if it has that size.
    """
    from PIL import Image

    height, width = size
    if image.size == (width, height):
        return image
    # A centre crop, as usual for photos: objects are mostly in the middle, and models learn from
    # undistorted ones; squashing 3:2 to a square changes every shape.
    crop_width = max(min(image.width, image.height * width // height), 1)
    crop_height = max(min(image.height, image.width * height // width), 1)
    left, top = (image.width - crop_width) // 2, (image.height - crop_height) // 2
    # Columns first, then rows, in two calls: each pass rounds to 8 bits, and since version 13 the
    # order of Pillow's passes depends on the size of the image. Rows that the filter of the second
    # pass does not reach are left out.
    reach = crop_height // height + 2
    first, last = max(top - reach, 0), min(top + crop_height + reach, image.height)
    columns = (left, first, left + crop_width, last)
    image = image.resize((width, last - first), Image.Resampling.BILINEAR, box=columns)
    rows = (0, top - first, width, top - first + crop_height)
    return image.resize((width, height), Image.Resampling.BILINEAR, box=rows)


def resize_image(image, size):
    """Resizes one image as `resize_to_fit`.

    Args:
        image: `(height, width, channels)` array with values 0 to 255. Floats are rounded first if
            the size differs, so that they give what the same image stored in 8 bits gives.
        size: `(height, width)`.

    Returns:
        `(*size, channels)` array with whole numbers, of the dtype of `image`; `image` itself,
        fractions included, if it has that size.

    Example:

    ```python
    resize_image(np.zeros((427, 640, 3), "uint8"), (32, 32)).shape  # (32, 32, 3)
    ```
    """
    from PIL import Image

    if image.shape[:2] == tuple(size):
        return image
    eight_bits = np.clip(np.rint(image), 0, 255).astype("uint8")
    if image.shape[2] == 3:
        resized = np.asarray(resize_to_fit(Image.fromarray(eight_bits), size))
    else:  # each channel on its own, as Pillow would weight colours by a fourth
        channels = np.moveaxis(eight_bits, 2, 0)
        images = [Image.fromarray(np.ascontiguousarray(channel)) for channel in channels]
        resized = np.stack([np.asarray(resize_to_fit(one, size)) for one in images], axis=-1)
    return resized.astype(image.dtype)


def resize_batch(images, size):
    """Resizes `(batch, height, width, channels)` arrays, each image as `resize_image`."""
    if images.shape[1:3] == tuple(size):
        return images
    resized = np.empty((len(images), *size, images.shape[3]), images.dtype)
    for row, image in enumerate(images):
        resized[row] = resize_image(image, size)
    return resized
