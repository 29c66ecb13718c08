"""Resizes and normalises images."""

import warnings

import keras
import keras_hub
import numpy as np

from lsmha_keras.models.cct_backbone import CCTBackbone

# CIFAR-100 channel statistics of images scaled to [0, 1].
CIFAR100_MEAN = (0.5071, 0.4867, 0.4408)
CIFAR100_STD = (0.2675, 0.2565, 0.2761)


@keras.saving.register_keras_serializable(package="lsmha_keras")
class CCTImageConverter(keras_hub.layers.ImageConverter):
    """Turns images with values 0 to 255 into the normalised input of a `CCTBackbone`.

    Args:
        image_size: `(height, width)` or `None` for no resizing.
        scale: floats, one per channel, or one for all; see `keras_hub.layers.ImageConverter`.
        offset: likewise; the output is `image * scale + offset`.
        **kwargs: see `keras_hub.layers.ImageConverter`. `dtype` is float32 by default, whatever
            Keras's policy: of 256 values bfloat16 tells half apart once they are normalised.

    Call arguments:
        inputs: one image `(height, width, channels)` or a batch of them, integers or floats from 0
            to 255. Values are checked when the input is a NumPy array.

    Returns:
        Float images of the size asked for.

    Raises:
        ValueError: if the rank, the number of channels or the dtype does not fit, or if values are
            NaN or outside 0 to 255.

    Example:

    ```python
    converter = lsmha_keras.CCTImageConverter.for_images((32, 32, 3))
    converter(np.random.randint(0, 256, size=(2, 64, 48, 3), dtype="uint8"))  # (2, 32, 32, 3)
    ```
    """

    backbone_cls = CCTBackbone

    def __init__(self, image_size=None, scale=None, offset=None, **kwargs):
        super().__init__(image_size, scale, offset, **{"dtype": "float32", **kwargs})

    @classmethod
    def from_config(cls, config):
        """Builds from a config, in float32: what was saved may have the precision of a training."""
        return super().from_config({**config, "dtype": "float32"})

    @classmethod
    def for_images(cls, image_shape, mean=CIFAR100_MEAN, std=CIFAR100_STD, **kwargs):
        """Builds the converter that normalises by the mean and deviation of images in [0, 1].

        Args:
            image_shape: `(height, width, channels)` of the model.
            mean: floats, one per channel. Defaults to CIFAR-100's; images without three channels
                get its average.
            std: floats, likewise.
            **kwargs: see `keras_hub.layers.ImageConverter`.
        """
        channels = image_shape[-1]
        if channels != len(mean):
            mean, std = [float(np.mean(mean))] * channels, [float(np.mean(std))] * channels
        return cls(
            image_size=tuple(image_shape[:2]),
            scale=[1 / (255 * s) for s in std],
            offset=[-m / s for m, s in zip(mean, std, strict=True)],
            **kwargs,
        )

    def call(self, inputs):
        images = inputs["images"] if isinstance(inputs, dict) else inputs
        if not isinstance(images, (list, tuple)):
            self._check_shape(images)
        if isinstance(images, np.ndarray):
            check_image_values(images)
        return super().call(inputs)

    def _check_shape(self, images):
        channels = len(self.scale) if isinstance(self.scale, (list, tuple)) else None
        rank = len(images.shape)
        if rank not in (3, 4) or (channels and images.shape[-1] not in (channels, None)):
            raise ValueError(
                "Images must have shape (height, width, channels) or (batch, height, width, "
                f"channels){f' with {channels} channels' if channels else ''}. "
                f"Received: images of shape {tuple(images.shape)}"
            )


def check_image_values(images):
    """Raises `ValueError` unless a NumPy array holds numbers from 0 to 255."""
    if images.dtype.kind not in "uif":
        raise ValueError(
            f"Images must be integers or floats from 0 to 255. Received: dtype {images.dtype}"
        )
    if images.dtype == np.uint8 or not images.size:
        return
    low, high = images.min(), images.max()
    if not (low >= 0 and high <= 255):  # Also true if either is NaN.
        raise ValueError(
            "Images must have values from 0 to 255, unnormalised. "
            f"Received: values from {low} to {high}"
        )


def warn_of_fractions(images, stacklevel=2):
    """Warns if floats end at 1 or below, which are taken for all but black images.

    Args:
        images: NumPy array.
        stacklevel: as for `warnings.warn`.

    Returns:
        bool, whether it warned.
    """
    high = images.max() if images.dtype.kind == "f" and images.size else 0
    if not 0 < high <= 1:
        return False
    warnings.warn(
        "Images are expected with values in 0 .. 255, and the largest here is "
        f"{high:g}: multiply images in 0 .. 1 by 255.",
        stacklevel=stacklevel + 1,
    )
    return True
