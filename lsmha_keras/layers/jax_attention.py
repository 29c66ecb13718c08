"""Attention for many heads on JAX: a loop over groups of heads whose scores stay in cache."""

import functools

import jax
import jax.numpy as jnp
import keras

# Scores of one group of heads, in bytes: small enough for a core's cache.
GROUP_BYTES = 2**20


def loop_pays(query, key):
    """Whether `loop_attention` is the faster form here: on one CPU.

    Images that are spread over several devices would be gathered for the loop.

    Args:
        query: array of shape `(batch, queries, heads, head_dim)`.
        key: array of shape `(batch, keys, heads, head_dim)`.

    Returns:
        A bool; False for sizes that are symbols, as in an export with any batch size.
    """
    if jax.default_backend() != "cpu" or keras.distribution.distribution() is not None:
        return False
    return all(isinstance(size, int) for size in (*query.shape, *key.shape))


def loop_attention(query, key, value, bias, dropout_rate, seed):
    """Computes attention one group of heads at a time, forward and backward.

    The backward pass computes each group's attention weights again, from the scores and the
    log-sum-exp that the forward pass saved, so memory holds the scores of one group only.

    Args:
        query: array of shape `(batch, queries, heads, head_dim)`.
        key: array of shape `(batch, keys, heads, head_dim)`.
        value: array of shape `(batch, keys, heads, head_dim)`.
        bias: float32 array `(batch, keys)` added to the scores, or `None`.
        dropout_rate: float in [0, 1).
        seed: uint32 array of shape `(2,)`, or `None` without dropout.

    Returns:
        An array of shape `(batch, queries, heads, head_dim)` in the dtype of `query`.

    References:
        - [Dao et al., 2022](https://arxiv.org/abs/2205.14135), section 3
    """
    batch, queries, heads, head_dim = query.shape
    scaled = query * jnp.asarray(head_dim**-0.5, query.dtype)
    fitting = GROUP_BYTES // (4 * queries * key.shape[1])
    group = max(
        n for n in range(1, batch * heads + 1) if not batch * heads % n and n <= max(1, fitting)
    )
    if bias is not None:
        bias = jnp.repeat(bias, heads, axis=0).reshape(-1, group, 1, key.shape[1])
    folded = (_fold(x, group) for x in (scaled, key, value))
    outputs = _attend(*folded, bias, seed, dropout_rate)
    return outputs.reshape(batch, heads, queries, head_dim).transpose(0, 2, 1, 3)


def _fold(x, group):
    """(batch, tokens, heads, head_dim) -> (groups, group, tokens, head_dim)."""
    batch, tokens, heads, head_dim = x.shape
    return x.transpose(0, 2, 1, 3).reshape(batch * heads // group, group, tokens, head_dim)


@functools.partial(jax.custom_vjp, nondiff_argnums=(5,))
def _attend(query, key, value, bias, seed, dropout_rate):
    return _forward(query, key, value, bias, seed, dropout_rate)[0]


def _forward(query, key, value, bias, seed, dropout_rate):
    def attend_group(inputs):
        index, query, key, value, bias = inputs
        scores = _scores(query, key, bias)
        top = scores.max(-1, keepdims=True)
        weights = jnp.exp(scores - top)
        total = weights.sum(-1, keepdims=True)
        if dropout_rate:
            weights = jnp.where(_keep(seed, index, weights.shape, dropout_rate), weights, 0)
        outputs = jnp.einsum("gqk,gkd->gqd", weights.astype(value.dtype), value)
        outputs = outputs / (total * (1 - dropout_rate))
        return outputs.astype(value.dtype), top + jnp.log(total)

    inputs = (jnp.arange(query.shape[0], dtype="uint32"), query, key, value, bias)
    outputs, log_total = jax.lax.map(attend_group, inputs)
    return outputs, (query, key, value, bias, seed, outputs, log_total)


def _backward(dropout_rate, saved, gradient):
    query, key, value, bias, seed, outputs, log_total = saved
    # For each query the sum over keys of weight times dL/dweight, without the scores.
    shared = (gradient * outputs).astype("float32").sum(-1, keepdims=True)

    def differentiate_group(inputs):
        index, query, key, value, bias, log_total, shared, gradient = inputs
        weights = jnp.exp(_scores(query, key, bias) - log_total)
        by_weight = jnp.einsum("gqd,gkd->gqk", gradient, value).astype("float32")
        dropped = weights
        if dropout_rate:
            keep = _keep(seed, index, weights.shape, dropout_rate)
            dropped = jnp.where(keep, weights / (1 - dropout_rate), 0)
            by_weight = jnp.where(keep, by_weight / (1 - dropout_rate), 0)
        by_score = (weights * (by_weight - shared)).astype(query.dtype)
        return (
            jnp.einsum("gqk,gkd->gqd", by_score, key),
            jnp.einsum("gqk,gqd->gkd", by_score, query),
            jnp.einsum("gqk,gqd->gkd", dropped.astype(gradient.dtype), gradient),
        )

    index = jnp.arange(query.shape[0], dtype="uint32")
    inputs = (index, query, key, value, bias, log_total, shared, gradient)
    return *jax.lax.map(differentiate_group, inputs), None, None


_attend.defvjp(_forward, _backward)


def _scores(query, key, bias):
    scores = jnp.einsum("gqd,gkd->gqk", query, key).astype("float32")
    return scores if bias is None else scores + bias


def _keep(seed, index, shape, dropout_rate):
    """Decides what dropout keeps, by a hash of the seed and of each weight's position.

    A position always gives the same decision, so the backward pass need not store it, and hashing
    fuses with the arithmetic around it. The mixing function is C. Wellons' `lowbias32`.
    """
    size = shape[0] * shape[1] * shape[2]
    x = jax.lax.iota("uint32", size).reshape(shape) + index * jnp.uint32(size)
    for half in (seed[0], seed[1]):
        x = x + half
        x = (x ^ (x >> 16)) * jnp.uint32(0x7FEB352D)
        x = (x ^ (x >> 15)) * jnp.uint32(0x846CA68B)
        x = x ^ (x >> 16)
    return x >= jnp.uint32(round(dropout_rate * 2**32))
