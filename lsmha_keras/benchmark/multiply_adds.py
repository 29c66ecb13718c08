"""Counts the multiply-adds of a Keras model, the products in attention included."""

import contextlib
import math
import threading

import keras
import numpy as np

from lsmha_keras.errors import InputError
from lsmha_keras.layers.glmix_block import SlotMixing
from lsmha_keras.layers.gru_tokenizer import GRUTokenizer
from lsmha_keras.layers.head_tokens import HeadTokens
from lsmha_keras.layers.ista import ISTAStep
from lsmha_keras.layers.lama_pooling import LAMAPooling
from lsmha_keras.layers.large_scale_multi_head_attention import LargeScaleMultiHeadAttention
from lsmha_keras.layers.position_embedding import PositionEmbedding
from lsmha_keras.layers.sequence_pooling import SequencePooling
from lsmha_keras.layers.spectral_block import SpectralFilter
from lsmha_keras.layers.token_reduction import TokenReduction

_LOCK = threading.Lock()


def count_multiply_adds(model):
    """Counts the multiply-adds of a model for one sample.

    Convolutions, dense layers, both products of attention and weighted pooling count. As is usual,
    operations on single values do not: biases, normalisations, activations, softmax. The model runs
    once, and every layer counts with the shapes of its call.

    Args:
        model: built `keras.Model`.

    Returns:
        int.

    Raises:
        ValueError: if the model has matrices in unknown layers; names them.

    Example:

    ```python
    model = keras.Sequential([keras.Input((4, 4, 3)), keras.layers.Conv2D(8, 3, padding="same")])
    count_multiply_adds(model)  # 16 positions x 27 inputs x 8 filters = 3456
    ```
    """
    with _recorded_calls(model) as calls:
        _run(model, make_inputs(model, 1))
    total, known = 0, set()
    # Sub-layers of attention are counted with it, as it does not call them on every backend.
    apart = {
        id(part)
        for layer, _, _ in calls
        if isinstance(layer, LargeScaleMultiHeadAttention)
        for part in layer._flatten_layers(include_self=False)
    }
    for layer, inputs, outputs in calls:
        if id(layer) not in apart and (count := _find_counter(layer)):
            total += count(layer, inputs, outputs)
            known |= {id(weight) for weight in layer.weights}
    unknown = [w.path for w in model.weights if id(w) not in known and _is_matrix(w)]
    if unknown:
        raise InputError(
            "Multiply-adds are counted for Keras's convolutions, dense layers and multi-head "
            f"attention and for this package's layers. Received: weights {', '.join(unknown)}"
        )
    return int(total)


def make_inputs(model, batch_size):
    """Draws random inputs of the shape and type that a model takes.

    Args:
        model: built `keras.Model`.
        batch_size: int.

    Returns:
        A tensor of the current backend.

    Raises:
        ValueError: if the model does not take one tensor of known shape, except for the batch.
    """
    inputs = getattr(model, "inputs", None) or ()  # those that subclass `keras.Model` have none
    built = (model.get_build_config() or {}).get("input_shape")
    shape = tuple(inputs[0].shape) if len(inputs) == 1 else built
    if not isinstance(shape, (tuple, list)) or not all(isinstance(n, int) for n in shape[1:]):
        raise InputError(
            "The model must be built and take one tensor of known shape, except for the batch. "
            f"Received: model {model.name!r} of input_shape={shape}"
        )
    values = np.random.default_rng(0).random((batch_size, *shape[1:]))
    return keras.ops.convert_to_tensor(values, inputs[0].dtype if inputs else "float32")


def _run(model, inputs):
    if keras.config.backend() == "jax":
        import jax

        # Shapes are enough; in eager mode JAX would compile every operation.
        jax.eval_shape(lambda x: model(x, training=False), inputs)
    else:
        model(inputs, training=False)


@contextlib.contextmanager
def _recorded_calls(model):
    """Yields a list that receives every call of a layer: layer, input shapes, output shape.

    Keras has no hook for this, and calls of layers inside layers cannot be seen from outside. So
    while the model runs, `call` of its layers, and of no others, is replaced on the instance.
    """
    calls, owner = [], threading.get_ident()

    def recorded(layer, call):
        def call_and_record(*args, **kwargs):
            outputs = call(*args, **kwargs)
            if threading.get_ident() == owner:
                shapes = [tuple(x.shape) for x in (*args, *kwargs.values()) if hasattr(x, "shape")]
                calls.append((layer, shapes, tuple(getattr(outputs, "shape", ()))))
            return outputs

        return call_and_record

    with _LOCK, contextlib.ExitStack() as stack:
        for layer in model._flatten_layers():
            # Layers in int8, int4 or float8 run `quantized_call` in place of `call`.
            for name in ("call", "quantized_call"):
                if hasattr(layer, name):
                    # Bypasses Keras's `__setattr__`, which would track the function.
                    object.__setattr__(layer, name, recorded(layer, getattr(layer, name)))
                    stack.callback(object.__delattr__, layer, name)
        yield calls


def _find_counter(layer):
    return next((count for kind, count in _COUNTERS.items() if isinstance(layer, kind)), None)


def _is_matrix(weight):
    # A bias, a scale or a class token has at most one axis longer than 1.
    return sum(side > 1 for side in weight.shape) > 1


def _count_dense(layer, inputs, outputs):
    return math.prod(inputs[0]) * layer.units


def _count_einsum(layer, inputs, outputs):
    _, kernel, output = layer.equation.replace("->", ",").split(",")
    summed = [
        side for axis, side in zip(kernel, layer.kernel.shape, strict=True) if axis not in output
    ]
    return math.prod(outputs) * math.prod(summed)


def _count_conv(layer, inputs, outputs):
    return math.prod(outputs) // layer.filters * math.prod(layer.kernel.shape)


def _count_transposed_conv(layer, inputs, outputs):
    axis = 1 if layer.data_format == "channels_first" else -1
    return math.prod(inputs[0]) // inputs[0][axis] * math.prod(layer.kernel.shape)


def _count_depthwise(layer, inputs, outputs):
    axis = 1 if layer.data_format == "channels_first" else -1
    return math.prod(outputs) // outputs[axis] * math.prod(layer.kernel.shape)


def _count_separable(layer, inputs, outputs):
    positions = math.prod(outputs) // layer.filters
    kernels = (layer.depthwise_kernel, layer.pointwise_kernel)
    return positions * sum(math.prod(kernel.shape) for kernel in kernels)


def _count_attention(layer, inputs, outputs):
    """Counts `Q K^T` and the weights times `V`; the projections are separate layers."""
    query, value = inputs[:2]
    pairs = math.prod(query[:-1]) * math.prod(value[1:-1])
    return layer.num_heads * pairs * (layer.key_dim + layer.value_dim)


def _count_ours(layer, inputs, outputs):
    batch, tokens, _ = inputs[0]
    return batch * layer.count_multiply_adds(tokens)


def _count_reduction(layer, inputs, outputs):
    batch, tokens, channels = inputs[0]
    return batch * layer.count_multiply_adds(tokens, channels)


def _count_pooling(layer, inputs, outputs):
    return math.prod(inputs[0])  # the scores are a separate dense layer


def _count_nothing(layer, inputs, outputs):
    return 0  # looks its weights up, or adds them


_layers = keras.layers
# The first match counts.
_COUNTERS = {
    (_layers.SeparableConv1D, _layers.SeparableConv2D): _count_separable,
    (_layers.DepthwiseConv1D, _layers.DepthwiseConv2D): _count_depthwise,
    (
        _layers.Conv1DTranspose,
        _layers.Conv2DTranspose,
        _layers.Conv3DTranspose,
    ): _count_transposed_conv,
    (_layers.Conv1D, _layers.Conv2D, _layers.Conv3D): _count_conv,
    (_layers.Dense,): _count_dense,
    (_layers.EinsumDense,): _count_einsum,
    (_layers.MultiHeadAttention,): _count_attention,
    (
        LargeScaleMultiHeadAttention,
        SpectralFilter,
        SlotMixing,
        ISTAStep,
        GRUTokenizer,
        LAMAPooling,
    ): _count_ours,
    (TokenReduction,): _count_reduction,
    (SequencePooling,): _count_pooling,
    # The projection of head tokens is a separate dense layer.
    (PositionEmbedding, HeadTokens, _layers.Embedding): _count_nothing,
}
