"""Calls augmentation layers of other packages."""

import inspect

import keras
import numpy as np

from lsmha_keras.data.augmentation_policy import mixes_labels


def call_foreign_layer(layer, images, labels):
    """Applies a layer that is not this package's, in training mode.

    Args:
        layer: a layer that takes images, or {"images", "labels"} if it mixes labels. Layers get
            float32 images; a function gets them as they are.
        images: `(batch, height, width, channels)`, NumPy or TensorFlow.
        labels: `(batch,)` int32 or `(batch, classes)` float32.

    Returns:
        Images and labels; NumPy arrays if the images were one.
    """
    eager = isinstance(images, np.ndarray)
    if isinstance(layer, keras.layers.Layer):
        # As Keras's layers do themselves inside `tf.data`, but not elsewhere.
        images = _as_float(images)
    if mixes_labels(layer):
        batch = _call(layer, {"images": images, "labels": labels})
        results = batch["images"], batch["labels"]
    else:
        results = _call(layer, images), labels
    return tuple(map(keras.ops.convert_to_numpy, results)) if eager else results


def _as_float(images):
    if isinstance(images, np.ndarray):
        return images.astype("float32")
    import tensorflow as tf

    return tf.cast(images, "float32")


def _call(layer, batch):
    # Keras passes `training` on to a layer whose `call` knows it.
    if isinstance(layer, keras.layers.Layer):
        known = inspect.signature(layer.call).parameters
    else:
        known = inspect.signature(layer).parameters
    return layer(batch, training=True) if "training" in known else layer(batch)
