"""Resizes and normalises images."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Self

import keras
import keras_hub
import numpy as np

from lsmha_keras.arguments import check_channels_last, plain
from lsmha_keras.errors import InputError
from lsmha_keras.images import resize_batch
from lsmha_keras.models.cct_backbone import CCTBackbone
from lsmha_keras.sample_checks import check_image_values

# CIFAR-100 channel statistics of images scaled to [0, 1].
CIFAR100_MEAN = (0.5071, 0.4867, 0.4408)
CIFAR100_STD = (0.2675, 0.2565, 0.2761)
_GEOMETRY = {
    "crop_to_aspect_ratio": True,
    "pad_to_aspect_ratio": False,
    "interpolation": "bilinear",
    "antialias": True,
}


class _CentredResizing(keras.layers.Resizing):
    """Resizes with `resize_batch`, because the backends' own filters give different results."""

    def _transform_images(self, images, transformation, interpolation):
        size = (self.height, self.width)
        if tuple(images.shape[-3:-1]) == size:
            return images
        if type(images).__module__.startswith("tensorflow") and not hasattr(images, "numpy"):
            return self._in_tf_graph(images, size)
        if keras.config.backend() == "jax":
            import jax

            if isinstance(images, jax.core.Tracer):
                shape = (*images.shape[:-3], *size, images.shape[-1])
                result = jax.ShapeDtypeStruct(shape, images.dtype)
                return jax.pure_callback(lambda x: _resize(np.asarray(x), size), result, images)
        if getattr(getattr(images, "device", None), "type", "") == "meta":
            # PyTorch wants only the shape.
            return super()._transform_images(images, transformation, interpolation)
        resized = _resize(np.asarray(self.backend.convert_to_numpy(images)), size)
        return self.backend.convert_to_tensor(resized)

    def _in_tf_graph(self, images, size):
        import tensorflow as tf

        resized = tf.numpy_function(lambda x: _resize(x, size), [images], images.dtype)
        resized.set_shape((*images.shape[:-3], *size, images.shape[-1]))
        return resized


def _resize(images, size):
    return resize_batch(images, size) if images.ndim == 4 else resize_batch(images[None], size)[0]


@keras.saving.register_keras_serializable(package="lsmha_keras")
class CCTImageConverter(keras_hub.layers.ImageConverter):
    """Turns images with values 0 to 255 into the normalised input of a `CCTBackbone`.

    The largest centred crop with the aspect ratio of `image_size` is resized with Pillow's
    antialiased bilinear filter and rounded to integers. Image files and datasets are resized by the
    same function, so a photo gives the same logits however it is loaded. Images that already have
    the size are not changed.

    Args:
        image_size: `(height, width)` or `None` for no resizing.
        scale: floats, one per channel, or one for all; see `keras_hub.layers.ImageConverter`.
        offset: likewise; the output is `image * scale + offset`.
        **kwargs: see `keras_hub.layers.ImageConverter`. `dtype` defaults to float32, whatever
            Keras's global policy: bfloat16 keeps only half of the 256 pixel values distinct after
            normalisation. The geometry is fixed.

    Call arguments:
        inputs: one image `(height, width, channels)` or a batch of them, integers or floats from 0
            to 255. Values are checked when the input is a NumPy array.

    Returns:
        Float images of the requested size.

    Raises:
        ValueError: if another geometry, filter or `data_format` is requested; if the rank, the
            number of channels or the dtype does not match; or if values are NaN or outside 0 to
            255.

    Example:

    ```python
    converter = lsmha_keras.CCTImageConverter.for_images((32, 32, 3))
    converter(np.random.randint(0, 256, size=(2, 64, 48, 3), dtype="uint8"))  # (2, 32, 32, 3)
    ```
    """

    backbone_cls = CCTBackbone
    resizing: keras.layers.Resizing

    def __init__(
        self,
        image_size: Sequence[int] | None = None,
        scale: float | Sequence[float] | None = None,
        offset: float | Sequence[float] | None = None,
        **kwargs: Any,
    ) -> None:
        for name, value in _GEOMETRY.items():
            if kwargs.setdefault(name, value) != value:
                raise InputError(
                    f"The converter always resizes with {name}={value!r}; to resize in another "
                    f"way, do it beforehand. Received: {name}={kwargs[name]!r}"
                )
        check_channels_last(kwargs.get("data_format"))
        image_size, scale, offset = plain(image_size), plain(scale), plain(offset)
        kwargs = {"dtype": "float32", **kwargs, "data_format": "channels_last"}
        super().__init__(image_size, scale, offset, **kwargs)
        # On JAX, an unbuilt layer makes every `predict` and `evaluate` run the whole model once
        # more, uncompiled. These two are never called on images of the right size, so mark them as
        # built. KerasHub's own layer stays tracked after it is replaced.
        self.resizing.built = True
        self.resizing = _CentredResizing(
            *(image_size or (None, None)),
            name="resizing",
            dtype=self.dtype_policy,
            bounding_box_format=self.bounding_box_format,
            data_format=self.data_format,
            **_GEOMETRY,
        )
        self.resizing.built = True

    @classmethod
    def from_config(cls, config):
        """Builds from a config, in float32 and with the fixed geometry.

        The model may have been trained in mixed precision, and older presets have
        `antialias=False`.
        """
        return super().from_config({**config, **_GEOMETRY, "dtype": "float32"})

    @classmethod
    def for_images(
        cls,
        image_shape: Sequence[int],
        mean: Sequence[float] = CIFAR100_MEAN,
        std: Sequence[float] = CIFAR100_STD,
        **kwargs: Any,
    ) -> Self:
        """Builds a converter that normalises by channel means and deviations of images in [0, 1].

        Args:
            image_shape: `(height, width, channels)` of the model.
            mean: floats, one per channel. Defaults to CIFAR-100's; images that do not have three
                channels get its average.
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
            raise InputError(
                "Images must have shape (height, width, channels) or (batch, height, width, "
                f"channels){f' with {channels} channels' if channels else ''}. "
                f"Received: images of shape {tuple(images.shape)}"
            )


def fit_converter(preprocessor, image_shape):
    """Makes a preset's image converter resize to another shape.

    Args:
        preprocessor: of a classifier, or `None`; without an image converter it is left as it is.
        image_shape: `(height, width, channels)` or `None` for no change.
    """
    converter = getattr(preprocessor, "image_converter", None)
    if converter is None or image_shape is None:
        return
    if len(np.shape(converter.scale)) and len(converter.scale) != image_shape[2]:
        preprocessor.image_converter = CCTImageConverter.for_images(image_shape)
    else:
        converter.image_size = tuple(image_shape[:2])
