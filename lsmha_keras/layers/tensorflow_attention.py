"""Attention for many heads on TensorFlow: a loop over groups of heads that stay in cache."""

import tensorflow as tf

# Scores of one group of heads, in bytes. Smaller groups fit the cache better, larger ones cost
# fewer turns of the loop: the measured times are flat from 4 to 8 MiB.
GROUP_BYTES = 2**23
# An image whose scores take less than this, over all heads, is not worth a turn of the loop.
MIN_LOOP_BYTES = 2**22
# More turns at once keep more scores in memory and gain nothing.
_PARALLEL_TURNS = 2


def loop_pays(query, key, dropout_rate):
    """Whether `loop_attention` is the faster form here: on CPUs, with or without dropout.

    Args:
        query: tensor of shape `(batch, heads, queries, head_dim)`.
        key: tensor of shape `(batch, heads, keys, head_dim)`.
        dropout_rate: float in [0, 1).

    Returns:
        A bool; False for a number of tokens that is unknown while the graph is built.
    """
    sizes = (*query.shape[1:], key.shape[2])
    return None not in sizes and not tf.config.list_physical_devices("GPU")


def loop_attention(query, key, value, bias, dropout_rate, seed):
    """Computes attention one group of heads of one image at a time, forward and backward.

    The backward pass computes each group's attention weights again, so memory holds the scores of
    a few groups only. Where the heads of an image are few, all images are computed at once.
    Everything is computed in float32.

    Args:
        query: tensor of shape `(batch, heads, queries, head_dim)`; only `batch` may be unknown.
        key: tensor of shape `(batch, heads, keys, head_dim)`.
        value: tensor of shape `(batch, heads, keys, width)`.
        bias: float32 tensor `(batch, keys)` added to the scores, or `None`. It may be minus
            infinity for some keys of an image, not for all.
        dropout_rate: float in [0, 1), rounded to a multiple of 2^-32.
        seed: int tensor of shape `(2,)`, or `None` without dropout.

    Returns:
        A tensor of shape `(batch, heads, queries, width)` in the dtype of `query`.

    References:
        - [Dao et al., 2022](https://arxiv.org/abs/2205.14135), section 3
    """
    _, heads, queries, head_dim = query.shape
    keys = key.shape[2]
    # Eagerly each turn of the loop would be dispatched from Python.
    loops = 4 * heads * queries * keys >= MIN_LOOP_BYTES and not tf.executing_eagerly()
    group = _group_size(heads, 4 * queries * keys) if loops else heads
    dtype = query.dtype
    query, key, value = (tf.cast(x, "float32") for x in (query, key, value))
    folded = [
        tf.reshape(x, (-1, group, *x.shape[2:])) for x in (query * head_dim**-0.5, key, value)
    ]
    if bias is not None:
        bias = tf.repeat(bias, heads // group, axis=0)[:, None, None]  # (groups, 1, 1, keys)
    words = _draw_words(tf.shape(folded[0])[0], group, queries, keys, seed) if dropout_rate else ()

    @tf.custom_gradient
    def attend(*folded):
        return _attend(folded, (bias, *words), dropout_rate, loops)

    shape = (-1, heads, queries, value.shape[-1])
    return tf.cast(tf.reshape(attend(*folded), shape), dtype)


def _group_size(heads, head_bytes):
    """The largest number of heads that divides `heads` and fits into `GROUP_BYTES`."""
    fitting = max(1, GROUP_BYTES // head_bytes)
    return max(n for n in range(1, heads + 1) if heads % n == 0 and n <= fitting)


def _attend(folded, constants, dropout_rate, loops):
    """Returns the head outputs, and the function that turns their gradient into the inputs'."""

    def attend_group(query, key, value, *constants):
        _, dropped = _weights(query, key, dropout_rate, *constants)
        return tf.matmul(dropped, value)

    def differentiate_group(query, key, value, gradient, shared, *constants):
        weights, dropped = _weights(query, key, dropout_rate, *constants)
        by_weight = tf.matmul(gradient, value, transpose_b=True)
        by_score = dropped * by_weight - weights * shared
        return (
            tf.matmul(by_score, key),
            tf.matmul(by_score, query, transpose_a=True),
            tf.matmul(dropped, gradient, transpose_a=True),
        )

    kept = 1 - dropout_rate
    outputs = _map_groups(attend_group, (*folded, *constants), tf.float32, loops) / kept

    def differentiate(gradient):
        # For each query the sum over keys of weight times dL/dweight, without the scores.
        shared = tf.reduce_sum(gradient * outputs, -1, keepdims=True)
        inputs = (*folded, gradient / kept, shared, *constants)
        return _map_groups(differentiate_group, inputs, (tf.float32,) * 3, loops)

    return outputs, differentiate


def _map_groups(function, inputs, dtypes, loops):
    """Calls `function` with one group of each input at a time, or with all groups at once."""
    if not loops:
        return function(*inputs)
    return tf.map_fn(
        lambda turn: function(*(x if x is None else x[turn] for x in inputs)),
        tf.range(tf.shape(inputs[0])[0]),
        fn_output_signature=dtypes,
        parallel_iterations=_PARALLEL_TURNS,
    )


def _weights(query, key, dropout_rate, bias, rows=None, columns=None):
    """Attention weights without and with dropout; the kept ones are not scaled."""
    scores = tf.matmul(query, key, transpose_b=True)
    if bias is not None:
        scores += bias
    weights = tf.nn.softmax(scores)
    if not dropout_rate:
        return weights, weights
    keep = rows * columns >= round(dropout_rate * 2**32) - 2**31
    return weights, weights * tf.cast(keep, weights.dtype)


def _draw_words(groups, group, queries, keys, seed):
    """Draws an odd random word for each query of each head, and any word for each of its keys.

    Their product decides whether dropout keeps a weight. An odd factor permutes the 2^32 words, so
    each product is uniform, and independent of the others in its row and of any one elsewhere:
    multiplicative hashing, cheaper than drawing as many words.
    """
    seed = tf.cast(seed, "int32")
    rows, columns = (
        tf.random.stateless_uniform(
            (groups, group, *shape),
            tf.random.experimental.stateless_fold_in(seed, part),
            minval=None,
            maxval=None,
            dtype="int32",
        )
        for part, shape in enumerate(((queries, 1), (1, keys)))
    )
    return tf.bitwise.bitwise_or(rows, 1), columns
