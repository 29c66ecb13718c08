"""The head outputs of any Keras model, and the one method that a foreign model needs."""

import contextlib

import keras
import numpy as np
from keras import ops

from lsmha_keras.errors import InputError
from lsmha_keras.models.block_walk import prepared


class HeadOutputs:
    """Runs a model up to the head outputs of its attention blocks, without gradients.

    Models of this package are run through their method `intermediates`, after their preprocessor.
    Any other Keras model must have **one method**:

    `model.head_outputs(images) -> {block: tensor (batch, tokens, heads, head_dim)}`

    where `images` are float32 with the dataset's values (the method does its own preprocessing),
    `block` is any int, and the tensors are the outputs of the heads *before* the output projection.
    It runs in inference mode inside a compiled step, so it may only use `keras.ops`. A model of
    sequences with padding has a method `token_mask(inputs)`, too, which returns a boolean tensor
    `(batch, tokens)`, `False` for padding. A subclass of
    `keras.layers.MultiHeadAttention` can keep these tensors:

    ```python
    class Attention(keras.layers.MultiHeadAttention):
        def _compute_attention(self, *args, **kwargs):
            outputs, scores = super()._compute_attention(*args, **kwargs)
            self.heads = outputs  # (batch, tokens, heads, head_dim)
            return outputs, scores
    ```

    and the model's `head_outputs` calls its layers and returns `{0: attention.heads}`;
    `examples/shp_of_any_keras_model.py` is complete.

    Args:
        model: built `keras.Model`, as described.
        blocks: list of indices of blocks, or `None` for all that have heads.

    Raises:
        ValueError: if the model has neither method, or a block is not one of its attention blocks.

    Example:

    ```python
    trunk = HeadOutputs(classifier, blocks=[1])
    trunk(trunk.prepare(images))[1]  # (batch, tokens, heads, head_dim)
    ```
    """

    def __init__(self, model, blocks=None):
        self.model = model
        self.blocks = blocks
        self.source = None
        if hasattr(model, "intermediates"):
            backbone = getattr(model, "backbone", model)
            valid = [i for i, block in enumerate(backbone.blocks) if hasattr(block, "attention")]
            self.blocks = check_blocks(blocks, valid)
            self.source = model.intermediates([f"block_{i}/head_outputs" for i in self.blocks])
        elif not callable(getattr(model, "head_outputs", None)):
            raise InputError(
                "The model must have a method `head_outputs(images)` that returns {block: tensor "
                "(batch, tokens, heads, head_dim)}; see `lsmha_keras.shp.head_outputs`. "
                f"Received: {type(model).__name__}"
            )

    @property
    def variables(self):
        """List of the model's variables, which a compiled step on jax takes as arguments."""
        return self.model.variables

    def prepare(self, images):
        """Preprocesses raw images; takes and returns a NumPy array, `(batch, ...)`."""
        if self.source is None:
            return np.asarray(images, "float32")
        return prepared(self.model, images)

    def token_mask(self, images):
        """Returns which tokens of prepared inputs are no padding, `(batch, tokens)`, or `None`."""
        backbone = getattr(self.model, "backbone", self.model)
        find = getattr(backbone, "token_mask", None)
        return None if find is None else find(images)

    def shapes(self, image_shape):
        """Finds blocks and head shapes without computing anything.

        Args:
            image_shape: shape of one prepared image, text or series.

        Returns:
            A dict from block to the shape `(1, tokens, heads, head_dim)`.

        Raises:
            ValueError: if a block is not one of the model's, or its tensor does not have 4 axes.
        """
        outputs = _Probe(self).compute_output_spec(keras.KerasTensor((1, *image_shape)))
        shapes = {block: tuple(heads.shape) for block, heads in outputs.items()}
        if wrong := {block: shape for block, shape in shapes.items() if len(shape) != 4}:
            raise InputError(
                "Head outputs must have shape (batch, tokens, heads, head_dim). "
                f"Received: shapes {wrong}"
            )
        return shapes

    def __call__(self, images):
        with _no_gradients():
            if self.source is not None:
                values = self.source(images)
                outputs = {i: values[f"block_{i}/head_outputs"] for i in self.blocks}
            else:
                outputs = self.model.head_outputs(images)
                asked = check_blocks(self.blocks, sorted(outputs))
                outputs = {i: outputs[i] for i in asked}
        return {i: ops.cast(ops.stop_gradient(heads), "float32") for i, heads in outputs.items()}


class _Probe(keras.layers.Layer):
    """Wraps a function so that Keras can infer the shapes of its results."""

    def __init__(self, function):
        super().__init__(dtype="float32")
        self.function = function

    def call(self, images):
        return self.function(images)


def check_blocks(blocks, valid):
    """Checks indices of blocks.

    Args:
        blocks: list of ints, or `None` for all.
        valid: list of the indices of the blocks that have heads.

    Returns:
        A list of ints, ascending.

    Raises:
        ValueError: if no block has heads, or `blocks` is empty or holds an invalid index.

    Example:
        >>> check_blocks(None, [1, 2])
        [1, 2]
    """
    if not valid:
        raise InputError("The model must have attention blocks. Received: a model without any")
    asked = valid if blocks is None else blocks
    if not asked or any(block not in valid for block in asked):
        raise InputError(
            f"`blocks` must be a list with some of {valid}, the blocks that have heads. "
            f"Received: blocks={blocks}"
        )
    return sorted({int(block) for block in asked})


def compile_setting():
    """Returns the `jit_compile` to use."""
    # XLA's convolutions are slow on a CPU under TensorFlow.
    if keras.config.backend() != "tensorflow":
        return "auto"
    import tensorflow as tf

    return "auto" if tf.config.list_physical_devices("GPU") else False


def gradient(function, x):
    """Returns the gradient of a scalar function at `x`."""
    backend = keras.config.backend()
    if backend == "jax":
        import jax

        return jax.grad(function)(x)
    if backend == "torch":
        import torch

        with torch.enable_grad():  # `predict` switches it off
            x = x.detach().requires_grad_()
            return torch.autograd.grad(function(x), x)[0]
    import tensorflow as tf

    with tf.GradientTape(watch_accessed_variables=False) as tape:
        tape.watch(x)
        value = function(x)
    return tape.gradient(value, x)


def _no_gradients():
    """Turns gradients off on torch, where `stop_gradient` alone keeps the trunk's activations."""
    if keras.config.backend() != "torch":
        return contextlib.nullcontext()
    import torch

    return torch.no_grad()
