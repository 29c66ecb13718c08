"""Attention on a GPU with JAX: cuDNN's fused kernel, or scores that are computed twice."""

import functools
import warnings

import jax
import jax.numpy as jnp

# cuDNN takes heads whose width is a multiple of this.
_WIDTH = 8


def gpu_attention(query, key, value, mask=None):
    """Computes attention without dropout on a GPU.

    cuDNN is requested by name: JAX never chooses it by itself, and Keras hides why it was refused.
    Heads of another width than a multiple of 8 are padded with zeros, which changes no score, and
    the scale stays that of the true width. What cuDNN does not take (float32, a mask, a GPU older
    than Ampere) is computed plainly, with a warning, and the backward pass computes the scores
    again instead of keeping `batch * heads * queries * keys` of them for each block.

    Args:
        query: array of shape `(batch, heads, queries, head_dim)`.
        key: array of shape `(batch, heads, keys, head_dim)`.
        value: array of shape `(batch, heads, keys, head_dim)`.
        mask: boolean array that broadcasts to the scores, `True` for what counts, at least one key
            of each query, or `None`.

    Returns:
        An array of shape `(batch, heads, queries, head_dim)` in the dtype of `query`.

    References:
        - [Dao et al., 2022](https://arxiv.org/abs/2205.14135)
    """
    refusal = "a mask"
    if mask is None:
        try:
            return _cudnn_attention(query, key, value)
        except (NotImplementedError, RuntimeError, ValueError) as error:
            refusal = str(error)
    _warn_once(refusal)
    return plain_attention(query, key, value, mask)


def _cudnn_attention(query, key, value):
    head_dim = query.shape[-1]
    missing = -head_dim % _WIDTH
    # cuDNN wants (batch, tokens, heads, head_dim).
    padded = (
        jnp.pad(x.swapaxes(1, 2), ((0, 0), (0, 0), (0, 0), (0, missing)))
        for x in (query, key, value)
    )
    outputs = jax.nn.dot_product_attention(*padded, scale=head_dim**-0.5, implementation="cudnn")
    return outputs[..., :head_dim].swapaxes(1, 2)


@jax.checkpoint
def plain_attention(query, key, value, mask):
    """Computes attention where cuDNN refuses; the backward pass computes the scores again."""
    scores = jnp.einsum("bhqd,bhkd->bhqk", query, key, preferred_element_type="float32")
    scores = scores * query.shape[-1] ** -0.5
    if mask is not None:
        scores = jnp.where(mask, scores, -jnp.inf)
    weights = jax.nn.softmax(scores, axis=-1).astype(value.dtype)
    return jnp.einsum("bhqk,bhkd->bhqd", weights, value)


@functools.cache
def _warn_once(refusal):
    warnings.warn(f"cuDNN's attention is not used, and training is slower: {refusal}", stacklevel=3)
