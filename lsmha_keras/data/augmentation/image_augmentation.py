"""The base class of the augmentation layers, and a layer that picks one of several."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Any

import keras
import numpy as np

from lsmha_keras.arguments import check_channels_last, plain
from lsmha_keras.errors import InputError


class ImageAugmentation(keras.layers.Layer):
    """Changes a batch of images at random, and its labels if it mixes images.

    Subclasses implement `augment(images, labels, rng)` in NumPy. All randomness comes from `rng`,
    so the result depends neither on the backend nor on the order in which threads run.
    `benchmarks/data.py` measures the throughput.

    Layers work on values in 0 .. 255 and keep the type. They belong in the input pipeline: in a
    `tf.data` map after `batch`, under any backend, or called on arrays. `AugmentationPolicy` gives
    them a generator for each epoch and batch. A layer used alone draws from its own generator in
    the order of its calls, so a parallel map does not repeat itself.

    Args:
        seed: int, or None for a random one.
        **kwargs: of `keras.layers.Layer`.

    Call arguments:
        images: `(batch, height, width, channels)`, or a dictionary with that under "images" and
            one-hot labels under "labels".
        training: bool; False returns the input. Default: True.

    Returns:
        The augmented images, or the dictionary with augmented "images" and "labels".
    """

    mixes_labels = False

    def __init__(self, seed=None, **kwargs):
        check_channels_last(kwargs.pop("data_format", None))
        super().__init__(**kwargs)
        self.seed = plain(seed)
        self._generator = np.random.default_rng(seed)
        self.built = True

    def augment(self, images, labels, rng):
        """Augments a batch; the given arrays stay unchanged.

        Args:
            images: `(batch, height, width, channels)` NumPy array.
            labels: `(batch, classes)` float32 if `mixes_labels`; otherwise anything, also None.
            rng: `numpy.random.Generator`, the only source of randomness.

        Returns:
            The images, of the same shape and type, and the labels.
        """
        raise NotImplementedError

    # `Layer.__call__` would convert the input to tensors of the backend first, which fails inside a
    # `tf.data` map under jax and torch.
    def __call__(self, images, training=True):
        batch = images if isinstance(images, dict) else {"images": images}
        if self.mixes_labels and "labels" not in batch:
            raise InputError(
                f"`{type(self).__name__}` mixes labels, so it takes a dictionary with the keys "
                f"'images' and 'labels' (one-hot). Received: {type(images).__name__}"
            )
        if isinstance(batch["images"], keras.KerasTensor):
            raise InputError(
                f"`{type(self).__name__}` belongs in the input pipeline (`dataset.map`, "
                "`AugmentationPolicy`), not inside a model. Received: a symbolic KerasTensor"
            )
        if not training:
            return images
        if self.mixes_labels and len(batch["labels"].shape) != 2:
            raise InputError(
                f"`{type(self).__name__}` mixes labels, which must be one-hot, of shape (batch, "
                f"classes): see `keras.ops.one_hot`. Received: shape={tuple(batch['labels'].shape)}"
            )
        augment = self._in_graph if _is_in_graph(batch["images"]) else self._eagerly
        augmented, labels = augment(batch["images"], batch.get("labels"))
        if not isinstance(images, dict):
            return augmented
        return {**batch, "images": augmented, **({"labels": labels} if "labels" in batch else {})}

    def compute_output_shape(self, input_shape):
        return input_shape

    def get_config(self):
        return {**super().get_config(), "seed": self.seed}

    def _eagerly(self, images, labels):
        images = keras.ops.convert_to_numpy(images)
        _check_images(images)
        if labels is not None:
            labels = keras.ops.convert_to_numpy(labels)
        if self.mixes_labels and labels.dtype.kind != "f":
            labels = labels.astype("float32")  # Mixed labels are fractions.
        images, labels = self.augment(images, labels, self._generator)
        if labels is not None:
            labels = keras.ops.convert_to_tensor(labels)
        return keras.ops.convert_to_tensor(images), labels

    def _in_graph(self, images, labels):
        import tensorflow as tf

        if images.shape.rank != 4:
            raise InputError(
                "`images` must be a batch of shape (batch, height, width, channels): call "
                f"`dataset.batch` before `dataset.map`. Received: shape={images.shape}"
            )
        if self.mixes_labels and not labels.dtype.is_floating:
            labels = tf.cast(labels, "float32")  # Mixed labels are fractions.
        given = [images] if labels is None else [images, labels]
        outputs = tf.numpy_function(
            lambda images, labels=None: [
                array
                for array in self.augment(images, labels, self._generator)
                if array is not None
            ],
            given,
            [tensor.dtype for tensor in given],
        )
        for output, tensor in zip(outputs, given, strict=True):
            output.set_shape(tensor.shape)
        return outputs[0], outputs[1] if labels is not None else None


def check_fraction(**fractions):
    """Raises ValueError for a value outside 0 .. 1.

    Args:
        **fractions: the values, by the names to give them in the message.

    Raises:
        ValueError: if one is not a number in 0 .. 1; names it.
    """
    for name, value in fractions.items():
        if not isinstance(plain(value), (int, float)) or not 0 <= value <= 1:
            raise InputError(f"`{name}` must be in 0 .. 1. Received: {name}={value!r}")


def _is_in_graph(array):
    # A TensorFlow tensor exists only where TensorFlow is imported already.
    tf = sys.modules.get("tensorflow")
    return tf is not None and tf.is_tensor(array) and tf.is_symbolic_tensor(array)


def _check_images(images):
    if images.ndim != 4:
        raise InputError(
            "`images` must have shape (batch, height, width, channels). "
            f"Received: shape={images.shape}"
        )
    if images.size and (images.min() < 0 or images.max() > 255):
        raise InputError(
            "`images` must have values in 0 .. 255. "
            f"Received: values from {images.min()} to {images.max()}"
        )


@keras.saving.register_keras_serializable(package="lsmha_keras")
class OneOf(ImageAugmentation):
    """Applies one of several layers to the whole batch, chosen at random for each batch.

    Args:
        layers: list of `ImageAugmentation` layers.
        seed: see `ImageAugmentation`.
        **kwargs: of `keras.layers.Layer`.

    Raises:
        ValueError: if there are no layers, or one is not an `ImageAugmentation`.

    Example:
        >>> from lsmha_keras.data import CutMix, MixUp
        >>> OneOf([MixUp(0.8), CutMix(1.0)]).mixes_labels
        True
    """

    def __init__(self, layers: Sequence[Any], seed: int | None = None, **kwargs: Any) -> None:
        if not layers or not all(isinstance(layer, ImageAugmentation) for layer in layers):
            raise InputError(
                "`layers` must be a list of augmentation layers of this package. "
                f"Received: layers={layers!r}"
            )
        super().__init__(seed=seed, **kwargs)
        self.layers = list(layers)
        self.mixes_labels = any(layer.mixes_labels for layer in layers)

    def augment(self, images, labels, rng):
        return self.layers[rng.integers(len(self.layers))].augment(images, labels, rng)

    def get_config(self):
        layers = [keras.saving.serialize_keras_object(layer) for layer in self.layers]
        return {**super().get_config(), "layers": layers}

    @classmethod
    def from_config(cls, config):
        """Creates the layer, and its inner layers, from what `get_config` returns.

        Args:
            config: dict.

        Returns:
            A `OneOf`.
        """
        layers = [keras.saving.deserialize_keras_object(layer) for layer in config["layers"]]
        return cls(**{**config, "layers": layers})
