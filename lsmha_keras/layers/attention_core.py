"""Scaled dot-product attention for many heads."""

import keras
from keras import ops, random

# Added to masked scores: a softmax in float32 turns it into an exact zero, and a row in which
# everything is masked stays finite.
_MASKED = -1e9


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

    On JAX and a CPU, unless the scores are asked for, this is `jax_attention.loop_attention`: with
    and without dropout, forward and backward, it keeps one group of heads in cache, where products
    over all heads at once move `batch * heads * queries * keys` scores through memory several
    times; `lsmha_keras.benchmark.attention` measures both. Elsewhere the fused
    `keras.ops.dot_product_attention` is taken whenever nothing needs the attention weights
    themselves: no dropout in this call and no scores asked for. The softmax is computed in float32
    whatever the dtype of the inputs.

    Args:
        query: tensor of shape `(batch, queries, heads, head_dim)`.
        key: tensor of shape `(batch, keys, heads, head_dim)`.
        value: tensor of shape `(batch, keys, heads, head_dim)`.
        padding_mask: optional boolean tensor of shape `(batch, keys)`, `True` for the keys that
            may be attended to.
        dropout_rate: float in [0, 1), dropout on the attention weights in this call; pass 0 at
            inference. Defaults to `0.0`.
        seed_generator: `keras.random.SeedGenerator`, needed if `dropout_rate > 0`.
        return_attention_scores: bool, whether to return the attention weights too.

    Returns:
        A pair: the head outputs `(batch, queries, heads, head_dim)` in the dtype of `query`, and
        the attention weights `(batch, heads, queries, keys)` after dropout, or `None`.
    """
    if keras.config.backend() == "jax" and not return_attention_scores:
        from lsmha_keras.layers import jax_attention

        if jax_attention.loop_pays(query, key):
            bias = None if padding_mask is None else ops.where(padding_mask, 0.0, _MASKED)
            seed = seed_generator.next() if dropout_rate else None
            loop = jax_attention.loop_attention
            return loop(query, key, value, bias, dropout_rate, seed), None

    if dropout_rate == 0.0 and not return_attention_scores:
        mask = None if padding_mask is None else padding_mask[:, None, None, :]
        return ops.dot_product_attention(query, key, value, mask=mask), None

    scale = float(query.shape[-1]) ** -0.5
    scores = ops.einsum("bqhd,bkhd->bhqk", query * ops.cast(scale, query.dtype), key)
    scores = ops.cast(scores, "float32")
    if padding_mask is not None:
        scores = ops.where(padding_mask[:, None, None, :], scores, _MASKED)
    weights = ops.cast(ops.softmax(scores, axis=-1), value.dtype)
    if dropout_rate > 0.0:
        weights = random.dropout(weights, dropout_rate, seed=seed_generator)
    outputs = ops.einsum("bhqk,bkhd->bqhd", weights, value)
    return outputs, (weights if return_attention_scores else None)
