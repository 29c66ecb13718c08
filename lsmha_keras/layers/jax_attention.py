"""Attention for many heads on JAX: a loop over groups of heads whose scores stay in cache."""

import functools

import jax
import jax.numpy as jnp
import keras

# Scores of one group of heads, in bytes: small enough for a core's cache.
GROUP_BYTES = 2**20


def loop_pays(query, key, dropout_rate):
    """Whether `loop_attention` is the faster form here: on one CPU, with or without dropout.

    Images that are spread over several devices would be gathered for the loop.

    Args:
        query: array of shape `(batch, heads, queries, head_dim)`.
        key: array of shape `(batch, heads, keys, head_dim)`.
        dropout_rate: float in [0, 1).

    Returns:
        A bool; False for sizes that are symbols, as in an export with any batch size, or zero.
    """
    if not on_cpu() or keras.distribution.distribution() is not None:
        return False
    # An empty batch has no groups of heads.
    return all(isinstance(size, int) and size for size in (*query.shape, *key.shape))


def on_cpu():
    """Whether JAX computes on CPUs."""
    return jax.default_backend() == "cpu"


def has_gpu():
    """Whether JAX computes on a GPU; see `jax_gpu_attention`."""
    return jax.default_backend() == "gpu"


def loop_attention(query, key, value, bias, dropout_rate, seed):
    """Computes attention one group of heads at a time, forward and backward.

    The backward pass computes each group's attention weights again, from the scores and the
    log-sum-exp that the forward pass saved, so memory holds the scores of one group only.
    Everything is computed in float32.

    Args:
        query: array of shape `(batch, heads, queries, head_dim)`.
        key: array of shape `(batch, heads, keys, head_dim)`.
        value: array of shape `(batch, heads, keys, width)`.
        bias: float32 array `(batch, keys)` added to the scores, or `None`. It may be minus
            infinity for some keys of an image, not for all.
        dropout_rate: float in [0, 1), rounded to a multiple of 2^-32.
        seed: uint32 array of shape `(2,)`, or `None` without dropout.

    Returns:
        An array of shape `(batch, heads, queries, width)` in the dtype of `query`.

    References:
        - [Dao et al., 2022](https://arxiv.org/abs/2205.14135), section 3
    """
    batch, heads, queries, head_dim = query.shape
    keys = key.shape[2]
    dtype = query.dtype
    query, key, value = (x.astype("float32") for x in (query, key, value))
    fitting = GROUP_BYTES // (4 * queries * keys)
    group = max(
        n for n in range(1, batch * heads + 1) if not batch * heads % n and n <= max(1, fitting)
    )
    if bias is not None:
        bias = jnp.repeat(bias, heads, axis=0).reshape(-1, group, 1, keys)
    # (batch, heads, tokens, head_dim) -> (groups, group, tokens, head_dim)
    folded = (x.reshape(-1, group, *x.shape[2:]) for x in (query * head_dim**-0.5, key, value))
    words = (
        _draw_words(batch * heads // group, group, queries, keys, seed) if dropout_rate else None
    )
    shape = (*query.shape[:3], value.shape[-1])
    return _attend(*folded, bias, words, dropout_rate).reshape(shape).astype(dtype)


@functools.partial(jax.custom_vjp, nondiff_argnums=(5,))
def _attend(query, key, value, bias, words, dropout_rate):
    return _forward(query, key, value, bias, words, dropout_rate)[0]


def _forward(query, key, value, bias, words, dropout_rate):
    def attend_group(inputs):
        query, key, value, bias, words = inputs
        scores = _scores(query, key, bias)
        top = scores.max(-1, keepdims=True)
        weights = jnp.exp(scores - top)
        total = weights.sum(-1, keepdims=True)
        if dropout_rate:
            weights = jnp.where(_keep(words, dropout_rate), weights, 0)
        outputs = jnp.einsum("gqk,gkd->gqd", weights, value)
        return outputs / (total * (1 - dropout_rate)), top + jnp.log(total)

    outputs, log_total = jax.lax.map(attend_group, (query, key, value, bias, words))
    return outputs, (query, key, value, bias, words, outputs, log_total)


def _backward(dropout_rate, saved, gradient):
    *inputs, outputs, log_total = saved
    # For each query the sum over keys of weight times dL/dweight, without the scores.
    shared = (gradient * outputs).sum(-1, keepdims=True)

    def differentiate_group(inputs):
        query, key, value, bias, words, log_total, shared, gradient = inputs
        weights = jnp.exp(_scores(query, key, bias) - log_total)
        by_weight = jnp.einsum("gqd,gkd->gqk", gradient, value)
        dropped = weights
        if dropout_rate:
            keep = _keep(words, dropout_rate)
            dropped = jnp.where(keep, weights / (1 - dropout_rate), 0)
            by_weight = jnp.where(keep, by_weight / (1 - dropout_rate), 0)
        by_score = weights * (by_weight - shared)
        return (
            jnp.einsum("gqk,gkd->gqd", by_score, key),
            jnp.einsum("gqk,gqd->gkd", by_score, query),
            jnp.einsum("gqk,gqd->gkd", dropped, gradient),
        )

    inputs = (*inputs, log_total, shared, gradient)
    return *jax.lax.map(differentiate_group, inputs), None, None


_attend.defvjp(_forward, _backward)


def _scores(query, key, bias):
    scores = jnp.einsum("gqd,gkd->gqk", query, key)
    return scores if bias is None else scores + bias


def _draw_words(groups, group, queries, keys, seed):
    """Draws an odd random word for each query of each head, and any word for each of its keys.

    Their product decides whether dropout keeps a weight. An odd factor permutes the 2^32 words, so
    each product is uniform, and independent of the others in its row and of any one elsewhere:
    multiplicative hashing, which fuses with the arithmetic around it.
    """
    for_rows, for_columns = jax.random.split(jax.random.wrap_key_data(seed))
    rows = jax.random.bits(for_rows, (groups, group, queries, 1), "uint32")
    return rows | 1, jax.random.bits(for_columns, (groups, group, 1, keys), "uint32")


def _keep(words, dropout_rate):
    rows, columns = words
    return rows * columns >= jnp.uint32(round(dropout_rate * 2**32))
