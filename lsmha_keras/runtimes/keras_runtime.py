"""Runs a classifier or a committee on the Keras backend."""

import functools

import keras
import numpy as np
from keras import ops

from lsmha_keras.models import (
    CCTImageClassifierPreprocessor,
    CCTImageConverter,
    CCTSequenceClassifier,
    load_classifier,
)
from lsmha_keras.models.keras_workarounds import KERAS_LOCK
from lsmha_keras.runtimes.description import Description, describe_inputs


class KerasRuntime:
    """A classifier or committee on the Keras backend, for presets without an exported file.

    TensorFlow and JAX compile preprocessing and model into one function for each batch size.
    Batches are padded to a power of two, so that there are only a few sizes. Calls from several
    threads run one at a time. The backend chooses its number of threads.

    Args:
        preset: as for `load_classifier`.

    Raises:
        ValueError: as `load_classifier`.

    Example:

    ```python
    KerasRuntime("lsmha-small").run(np.zeros((1, 32, 32, 3), "uint8"))
    ```
    """

    name = "keras"

    def __init__(self, preset):
        self.classifier = load_classifier(preset)
        self.description = Description(
            name=str(preset),
            num_classes=self.classifier.num_classes,
            class_names=self.classifier.class_names,
            **describe_inputs(self.classifier),
        )
        self._step = _make_step(self.classifier)

    def run(self, images):
        """Returns the outputs `(batch, classes)` of images, ids or series, arrays of a batch."""
        count = len(images)
        padding = (1 << (count - 1).bit_length()) - count
        images = np.concatenate([images, images[:1].repeat(padding, axis=0)])
        with KERAS_LOCK:
            return ops.convert_to_numpy(self._step(_numbers(images)))[:count]

    def probabilities(self, outputs):
        """Returns probabilities `(batch, classes)`; for a committee they depend on its mode."""
        return self.classifier.probabilities(outputs)


def _numbers(inputs):
    """Returns images and series as float32, and ids as they are."""
    return inputs if inputs.dtype == np.int32 else inputs.astype("float32")


def _make_step(classifier):
    """Makes a function from float32 images of the model's size, ids or series to outputs.

    `predict_on_batch` checks and preprocesses images outside the compiled part, and on JAX also
    copies the state of the model.
    """
    preprocessor = getattr(classifier, "preprocessor", None)
    converter = getattr(preprocessor, "image_converter", None)
    known = type(preprocessor) is CCTImageClassifierPreprocessor
    sequences = isinstance(classifier, CCTSequenceClassifier)
    if not sequences and (not known or type(converter) is not CCTImageConverter):
        return classifier.predict_on_batch  # a committee, or preprocessing of a user's

    def run(images):
        if sequences:  # texts are ids already
            return classifier(images, training=False)
        for name, apply in (("scale", ops.multiply), ("offset", ops.add)):
            if (values := getattr(converter, name)) is not None:
                images = apply(images, np.asarray(values, "float32"))
        return classifier(images, training=False)

    compiled = {"tensorflow": _compile_tensorflow, "jax": _compile_jax, "torch": _without_gradients}
    return compiled[keras.backend.backend()](classifier, run)


def _compile_tensorflow(classifier, run):
    import tensorflow as tf

    @functools.cache  # one function for each size: TensorFlow would warn of retracing
    def compiled(shape, dtype):
        # No AutoGraph: nothing here depends on values, and it warns of syntax that it lacks.
        function = tf.function(run, jit_compile=bool(classifier.jit_compile), autograph=False)
        return function.get_concrete_function(tf.TensorSpec(shape, dtype))

    return lambda images: compiled(images.shape, images.dtype.name)(tf.constant(images))


def _compile_jax(classifier, run):
    import jax

    variables = [*classifier.trainable_variables, *classifier.non_trainable_variables]

    @jax.jit
    def step(values, images):
        with keras.StatelessScope(zip(variables, values, strict=True)):
            return run(images)

    # Read anew in each call: `predict` replaces the arrays of a model on JAX.
    return lambda images: step([variable.value for variable in variables], images)


def _without_gradients(classifier, run):
    # Not compiled: `torch.compile` (2.13) breaks up the loop in which Keras calls the layers of a
    # functional model, and the result is slower than calling it eagerly.
    import torch

    def step(images):
        with torch.inference_mode():
            return run(ops.convert_to_tensor(images))

    return step
