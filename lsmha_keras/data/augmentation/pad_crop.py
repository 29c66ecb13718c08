"""Random crop of the padded image."""

import keras
import numpy as np

from lsmha_keras.arguments import plain
from lsmha_keras.data.augmentation.image_augmentation import ImageAugmentation


@keras.saving.register_keras_serializable(package="lsmha_keras")
class PadCrop(ImageAugmentation):
    """Pads every side with black and crops back to the image's size, at a random place per image.

    Args:
        padding: int, width of the border in pixels.
        seed: see `ImageAugmentation`.
        **kwargs: of `keras.layers.Layer`.

    Raises:
        ValueError: if `padding` is not a non-negative int.

    Example:
        >>> import numpy as np
        >>> images = np.full((2, 32, 32, 3), 255, dtype="uint8")
        >>> tuple(PadCrop(4, seed=0)(images).shape)
        (2, 32, 32, 3)
    """

    def __init__(self, padding=4, seed=None, **kwargs):
        padding = plain(padding)
        if not isinstance(padding, int) or isinstance(padding, bool) or padding < 0:
            raise ValueError(
                f"`padding` must be a number of pixels, 0 or more. Received: padding={padding!r}"
            )
        super().__init__(seed=seed, **kwargs)
        self.padding = padding

    def augment(self, images, labels, rng):
        tops, lefts = rng.integers(0, 2 * self.padding + 1, (2, len(images)))
        return crop_padded(images, tops, lefts, self.padding), labels

    def get_config(self):
        return {**super().get_config(), "padding": self.padding}


def crop_padded(images, tops, lefts, padding):
    """Crops each padded image back to its size.

    Args:
        images: `(batch, height, width, channels)`.
        tops: `(batch,)` integers in `0 .. 2 * padding`.
        lefts: the same for the columns.
        padding: int.

    Returns:
        `(batch, height, width, channels)`; `tops = lefts = padding` gives the images themselves.
    """
    count, height, width, channels = images.shape
    padded = np.zeros(
        (count, height + 2 * padding, width + 2 * padding, channels), dtype=images.dtype
    )
    padded[:, padding : padding + height, padding : padding + width] = images
    # Pixels of a row lie side by side, so that whole rows of a window are copied at once.
    lines = padded.reshape(count, height + 2 * padding, -1)
    windows = np.lib.stride_tricks.sliding_window_view(
        lines, (height, width * channels), axis=(1, 2)
    )
    return windows[np.arange(count), tops, lefts * channels].reshape(images.shape)
