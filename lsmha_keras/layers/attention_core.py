"""Scaled dot-product attention for many heads, and the masks of its tokens."""

import functools
import importlib
import importlib.util

import keras
import numpy as np
from keras import ops, random

from lsmha_keras.errors import InputError
from lsmha_keras.layers.weight_changes import change_weights


def project_heads(dense, x, num_heads):
    """Projects tokens to the queries, keys and values of all heads.

    Args:
        dense: `keras.layers.Dense` with `3 * num_heads * head_dim` units: queries, keys, values, in
            each of which the heads lie next to each other.
        x: tensor of shape `(batch, tokens, channels)`.
        num_heads: int.

    Returns:
        Three tensors of shape `(batch, num_heads, tokens, head_dim)`.
    """
    batch, tokens = ops.shape(x)[:2]
    head_dim = dense.units // (3 * num_heads)
    backend = keras.config.backend()
    if backend == "tensorflow":
        # One copy, of which the three are parts; gradients of slices would be padded with zeros.
        qkv = ops.reshape(dense(x), (batch, tokens, 3, num_heads, head_dim))
        return ops.unstack(ops.transpose(qkv, (2, 0, 3, 1, 4)))
    if backend == "jax" and not dense.lora_enabled and dense.quantization_mode is None:
        # Thirds of one product would be copied; those of its kernel are smaller.
        thirds = [ops.matmul(x, kernel) for kernel in ops.split(dense.kernel, 3, axis=-1)]
        if dense.use_bias:
            biases = ops.split(dense.bias, 3)
            thirds = [third + bias for third, bias in zip(thirds, biases, strict=True)]
    else:
        thirds = ops.split(dense(x), 3, axis=-1)
    shape = (batch, tokens, num_heads, head_dim)
    return [ops.swapaxes(ops.reshape(third, shape), 1, 2) for third in thirds]


def split_heads(x, num_heads):
    """Splits `(batch, tokens, heads * head_dim)` into `(batch, heads, tokens, head_dim)`."""
    batch, tokens = ops.shape(x)[:2]
    # The width is written out: in a graph of unknown batch TensorFlow would not know it otherwise.
    shape = (batch, tokens, num_heads, x.shape[-1] // num_heads)
    return ops.swapaxes(ops.reshape(x, shape), 1, 2)


def repeat_heads(x, times):
    """Repeats each head: `(batch, heads, ...)` becomes `(batch, heads * times, ...)`."""
    batch, heads, tokens, width = ops.shape(x)
    # TensorFlow's own repetition forgets all sizes where the batch is unknown.
    repeated = ops.tile(x[:, :, None], (1, 1, times, 1, 1))
    return ops.reshape(repeated, (batch, heads * times, tokens, width))


def open_empty_masks(x, padding_mask):
    """Makes a softmax over tokens uniform where no token is valid.

    The scores of such images become zero and all of their tokens count, so every row keeps a token
    and the others can be masked with minus infinity: weights and gradients are then exact, however
    large the scores are and whatever their dtype.

    Args:
        x: tensor of shape `(batch, ...)` to which the scores are proportional.
        padding_mask: boolean tensor of shape `(batch, tokens)`.

    Returns:
        A pair: `x`, zero for images without a valid token, and the mask, `True` throughout for
        them.
    """
    valid = ops.any(padding_mask, axis=1)  # (batch,)
    x = ops.where(ops.reshape(valid, (-1,) + (1,) * (len(x.shape) - 1)), x, ops.zeros_like(x))
    return x, ops.logical_or(padding_mask, ops.logical_not(valid)[:, None])


def attention_core(
    query,
    key,
    value,
    padding_mask=None,
    dropout_rate=0.0,
    seed_generator=None,
    return_attention_scores=False,
):
    """Computes `softmax(Q K^T / sqrt(head_dim)) V` for each head.

    At a fixed width the products cost the same for any number of heads; the scores, `batch * heads
    * queries * keys` of them, do not, once they go through memory. So on a CPU, unless the scores
    are asked for, heads are computed in groups whose scores stay in cache, and the backward pass
    computes them again, in the form that was measured to be the fastest on each backend:

    - JAX: `jax_attention`, a loop, in and out of training.
    - TensorFlow: `tensorflow_attention`, a loop in graphs where an image has many scores. XLA makes
      it slower.
    - PyTorch: `torch_attention`, a loop, in training with dropout; its fused attention otherwise,
      without the copies that Keras makes for it.

    With 16 images, 256 tokens, width 256, 64 heads and 2 cores, the whole layer is 7.6, 4.8 and 3.4
    times as fast as `keras.layers.MultiHeadAttention` at inference, and 3.0, 5.3 and 1.9 times in
    training, on JAX, PyTorch and TensorFlow (`zoo/results/attention.csv`).

    On accelerators fused attention is taken whenever nothing needs the attention weights
    themselves: no dropout in this call and no scores asked for. It is cuDNN's (`jax_gpu_attention`)
    on JAX with a GPU, and otherwise `keras.ops.dot_product_attention`'s; TensorFlow has no fused
    kernel. Scores, their softmax and the sums over keys are computed in float32 whatever the dtype
    of the inputs.

    Args:
        query: tensor of shape `(batch, heads, queries, head_dim)`.
        key: tensor of shape `(batch, heads, keys, head_dim)`.
        value: tensor of shape `(batch, heads, keys, width)`; `width` is `head_dim` or another.
        padding_mask: optional boolean tensor of shape `(batch, keys)`, `True` for the keys that
            may be attended to. The queries of an image without such a key attend to all of its keys
            alike: their output is the mean of the values, which alone receive gradients.
        dropout_rate: float in [0, 1), dropout on the attention weights in this call; pass 0 at
            inference. Defaults to `0.0`.
        seed_generator: `keras.random.SeedGenerator`, needed if `dropout_rate > 0`.
        return_attention_scores: bool, whether to return the attention weights too.

    Returns:
        A pair: the head outputs `(batch, heads, queries, width)` in the dtype of `query`, and
        the attention weights `(batch, heads, queries, keys)` after dropout, or `None`.
    """
    loop = _loop_module()
    if padding_mask is not None:
        query, padding_mask = open_empty_masks(query, padding_mask)
    if not return_attention_scores and loop and loop.loop_pays(query, key, dropout_rate):
        bias = None if padding_mask is None else ops.where(padding_mask, 0.0, -np.inf)
        seed = seed_generator.next() if dropout_rate else None
        return loop.loop_attention(query, key, value, bias, dropout_rate, seed), None

    backend = keras.config.backend()
    # JAX's fused attention takes values as wide as keys only.
    fused = backend == "torch" or (backend == "jax" and query.shape[-1] == value.shape[-1])
    if dropout_rate == 0.0 and not return_attention_scores and fused:
        mask = None if padding_mask is None else padding_mask[:, None, None, :]
        if backend == "torch":
            return loop.fused_attention(query, key, value, mask), None
        if backend == "jax" and loop.has_gpu():
            from lsmha_keras.layers.jax_gpu_attention import gpu_attention

            return gpu_attention(query, key, value, mask), None
        # XLA adds products up in half precision on CPUs (float16 always, bfloat16 with JAX 0.11).
        wide = "float32" if loop.on_cpu() else query.dtype
        # Keras wants (batch, tokens, heads, head_dim).
        swapped = (ops.swapaxes(ops.cast(x, wide), 1, 2) for x in (query, key, value))
        output = ops.swapaxes(ops.dot_product_attention(*swapped, mask=mask), 1, 2)
        return ops.cast(output, query.dtype), None

    scale = float(query.shape[-1]) ** -0.5
    # Rounded to half precision, scores would be wrong by more than the weights are, or overflow.
    query, key = ops.cast(query, "float32"), ops.cast(key, "float32")
    scores = ops.matmul(query * scale, ops.swapaxes(key, 2, 3))
    if padding_mask is not None:
        scores = ops.where(padding_mask[:, None, None, :], scores, -np.inf)
    weights = change_weights(ops.softmax(scores, axis=-1))
    if dropout_rate > 0.0:
        weights = random.dropout(weights, dropout_rate, seed=seed_generator)
    output = ops.cast(ops.matmul(weights, ops.cast(value, "float32")), value.dtype)
    return output, (ops.cast(weights, value.dtype) if return_attention_scores else None)


def _loop_module():
    name = f"lsmha_keras.layers.{keras.config.backend()}_attention"
    return importlib.import_module(name) if importlib.util.find_spec(name) else None


def joint_mask(x, **masks):
    """Returns the mask of the tokens that no mask leaves out, or `None` without masks.

    Args:
        x: tokens, tensor of shape `(batch, tokens, channels)`.
        **masks: boolean tensors of shape `(batch, tokens)` or `None`, by the names of the arguments
            of a layer's `call`. Keras (3.15) fills in `mask` with the mask of `x` if `x` is the
            only tensor it is called on, and `x_mask` otherwise.

    Raises:
        ValueError: if a mask does not fit the tokens.
    """
    found = []
    for name, mask in masks.items():
        if mask is None:
            continue
        mask = ops.convert_to_tensor(mask, dtype="bool")
        tokens = {mask.shape[-1], x.shape[1]} - {None}  # unknown in some graphs
        if len(mask.shape) != 2 or len(tokens) > 1:
            raise InputError(
                f"`{name}` must have shape (batch, {x.shape[1]}). "
                f"Received: {name} of shape {tuple(mask.shape)}"
            )
        found.append(mask)
    return functools.reduce(ops.logical_and, found) if found else None
