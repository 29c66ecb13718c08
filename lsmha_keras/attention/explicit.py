"""Attention whose scores are all in memory, for kinds that change them."""

import numpy as np
from keras import ops, random

from lsmha_keras.layers.attention_core import open_empty_masks
from lsmha_keras.layers.weight_changes import change_weights as changed_by_caller


def explicit_attention(
    query,
    key,
    value,
    padding_mask=None,
    dropout_rate=0.0,
    seed_generator=None,
    change_scores=None,
    change_weights=None,
    normalise=None,
):
    """Computes `change_weights(normalise(change_scores(Q K^T / sqrt(head_dim)))) V`.

    The scores of all heads go through memory, so it is slower than `attention_core` for many heads.
    It is for kinds of attention whose scores one head alone does not determine, or which are no
    softmax. Scores and weights are float32.

    Args:
        query: tensor of shape `(batch, heads, tokens, head_dim)`.
        key: tensor of the same shape.
        value: tensor of shape `(batch, heads, tokens, width)`.
        padding_mask: boolean tensor `(batch, tokens)` or `None`; images without a valid token are
            treated as `attention_core` treats them.
        dropout_rate: float, dropout on the weights in this call.
        seed_generator: `keras.random.SeedGenerator`, needed for dropout.
        change_scores: function of the scores `(batch, heads, tokens, tokens)`, or `None`. Padded
            tokens are masked afterwards.
        change_weights: function of the weights, of the same shape, or `None`.
        normalise: function of the scores, minus infinity where masked; `None` for the softmax.

    Returns:
        A pair: head outputs `(batch, heads, tokens, width)` in the dtype of `value`, and weights
        `(batch, heads, tokens, tokens)`, in that dtype too.
    """
    if padding_mask is not None:
        query, padding_mask = open_empty_masks(query, padding_mask)
    scale = float(query.shape[-1]) ** -0.5
    query, key = ops.cast(query, "float32"), ops.cast(key, "float32")
    scores = ops.matmul(query * scale, ops.swapaxes(key, 2, 3))
    if change_scores:
        scores = change_scores(scores)
    if padding_mask is not None:
        scores = ops.where(padding_mask[:, None, None, :], scores, -np.inf)
    weights = normalise(scores) if normalise else ops.softmax(scores, axis=-1)
    if change_weights:
        weights = change_weights(weights)
    weights = changed_by_caller(weights)
    if dropout_rate > 0.0:
        weights = random.dropout(weights, dropout_rate, seed=seed_generator)
    output = ops.matmul(weights, ops.cast(value, "float32"))
    return ops.cast(output, value.dtype), ops.cast(weights, value.dtype)


def mix_maps(mixing, maps):
    """Mixes the maps of all heads, as one product: LiteRT cannot convert an einsum here.

    Args:
        mixing: matrix `(new heads, heads)`.
        maps: float32 tensor `(batch, heads, queries, keys)`.

    Returns:
        A float32 tensor `(batch, new heads, queries, keys)`.
    """
    batch, heads, queries, keys = ops.shape(maps)
    flat = ops.reshape(maps, (batch, heads, queries * keys))
    mixed = ops.matmul(ops.cast(mixing, "float32"), flat)
    return ops.reshape(mixed, (batch, mixing.shape[0], queries, keys))
