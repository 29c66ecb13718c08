"""Attention on PyTorch: fused, or with dropout on a CPU a loop over heads kept in cache."""

import itertools

import torch

# Scores of one group of heads, in bytes: small enough for the cores' caches.
GROUP_BYTES = 2**20
# Logarithm of the smallest attention weight that is not treated as zero.
_MIN_LOG_WEIGHT = -60


def loop_pays(query, key, dropout_rate):
    """Whether `loop_attention` is the faster form here: many scores, with dropout, on a CPU.

    Without dropout PyTorch's fused attention is as fast or faster, and elsewhere it fuses dropout
    too. Scores that all fit into the cache, or that are fewer than the entries of the queries, cost
    less than the loop. A graph that is compiled, exported or traced would contain the loop
    unrolled.

    Args:
        query: tensor of shape `(batch, heads, queries, head_dim)`.
        key: tensor of shape `(batch, heads, keys, head_dim)`.
        dropout_rate: float in [0, 1).

    Returns:
        A bool.
    """
    if torch.compiler.is_compiling() or torch.jit.is_tracing():
        return False
    if dropout_rate == 0 or query.device.type != "cpu":
        return False
    batch, heads, queries, head_dim = query.shape
    keys = key.shape[2]
    return keys >= head_dim and 4 * batch * heads * queries * keys >= GROUP_BYTES


def fused_attention(query, key, value, mask):
    """Computes attention without dropout by PyTorch's own kernels, on any device.

    They take views as they are: `keras.ops.dot_product_attention` copies heads and output.

    Args:
        query: tensor of shape `(batch, heads, queries, head_dim)`.
        key: tensor of shape `(batch, heads, keys, head_dim)`.
        value: tensor of shape `(batch, heads, keys, width)`.
        mask: boolean tensor that broadcasts to the scores, `True` for what counts, or `None`. At
            least one key of each query must count.

    Returns:
        A tensor of shape `(batch, heads, queries, width)` in the dtype of `query`.
    """
    return torch.nn.functional.scaled_dot_product_attention(query, key, value, attn_mask=mask)


def loop_attention(query, key, value, bias, dropout_rate, seed):
    """Computes attention with dropout one group of heads at a time, forward and backward.

    The backward pass computes each group's attention weights again, from the scores and the
    log-sum-exp that the forward pass saved, and its dropout from the same random words, so memory
    holds the scores of one group only. Everything is computed in float32. Gradients of gradients
    and `torch.func` transforms are not supported.

    Args:
        query: tensor of shape `(batch, heads, queries, head_dim)`.
        key: tensor of shape `(batch, heads, keys, head_dim)`.
        value: tensor of shape `(batch, heads, keys, width)`.
        bias: float32 tensor `(batch, keys)` added to the scores, or `None`. It may be minus
            infinity for some keys of an image, not for all.
        dropout_rate: float in (0, 1), rounded to a multiple of 2^-32.
        seed: integer tensor of shape `(2,)`.

    Returns:
        A tensor of shape `(batch, heads, queries, width)` in the dtype of `query`.

    References:
        - [Dao et al., 2022](https://arxiv.org/abs/2205.14135), section 3
    """
    batch, heads, queries, head_dim = query.shape
    if bias is not None:
        bias = bias.repeat_interleave(heads, dim=0)[:, None]
    words = _draw_words(batch * heads, queries, key.shape[2], seed)
    folded = (_fold(query) * head_dim**-0.5, _fold(key), _fold(value))
    outputs = _Attend.apply(*folded, bias, *words, dropout_rate)
    return outputs.unflatten(0, (batch, heads)).mT.to(query.dtype)


def _fold(x):
    """(batch, heads, tokens, head_dim) -> (batch * heads, head_dim, tokens) in float32.

    Products of narrow heads are fastest with the tokens last. A single head needs no copy.
    """
    x = x.mT.float()
    return (x if x.shape[1] == 1 else x.contiguous()).flatten(0, 1)


class _Attend(torch.autograd.Function):
    """Attention of folded tensors; the scores are (groups of heads, queries, keys)."""

    @staticmethod
    def forward(ctx, query, key, value, bias, rows, columns, dropout_rate):
        inputs = (query, key, value, bias, rows, columns)
        outputs = query.new_empty((len(value), value.shape[1], query.shape[2]))
        log_total = torch.empty_like(rows, dtype=torch.float32)
        groups, buffers = _split(*inputs, outputs, log_total), _make_buffers(query, key, 2)
        for group in groups:
            _attend_group(*group, dropout_rate, buffers)
        ctx.save_for_backward(*inputs, outputs, log_total)
        ctx.dropout_rate = dropout_rate
        return outputs

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, gradient):
        *inputs, outputs, log_total = ctx.saved_tensors
        # For each query the sum over keys of weight times dL/dweight, without the scores.
        shared = (gradient * outputs).sum(1)[:, :, None]
        gradient = gradient / (1 - ctx.dropout_rate)
        query, key, value = inputs[:3]
        gradients = [torch.empty_like(x) for x in (query, key, value)]
        groups = _split(*inputs, log_total, shared, gradient, *gradients)
        buffers = _make_buffers(query, key, 3)
        for group in groups:
            _differentiate_group(*group, ctx.dropout_rate, buffers)
        return *gradients, None, None, None, None


def _attend_group(
    query, key, value, bias, rows, columns, outputs, log_total, dropout_rate, buffers
):
    weights, keep = (buffer[: len(query)] for buffer in buffers)
    _compute_scores(query, key, bias, out=weights)
    top = weights.amax(-1, keepdim=True)
    total = _exponentiate(weights.sub_(top)).sum(-1, keepdim=True)
    torch.add(top, total.log(), out=log_total)
    _multiply_by_bit(weights, _decide(rows, columns, dropout_rate, out=keep), out=weights)
    torch.bmm(value, weights.mT, out=outputs).div_(total.mT * (1 - dropout_rate))


def _differentiate_group(
    query,
    key,
    value,
    bias,
    rows,
    columns,
    log_total,
    shared,
    gradient,
    by_query,
    by_key,
    by_value,
    dropout_rate,
    buffers,
):
    weights, by_score, dropped = (buffer[: len(query)] for buffer in buffers)
    _exponentiate(_compute_scores(query, key, bias, out=weights).sub_(log_total))
    _multiply_by_bit(weights, _decide(rows, columns, dropout_rate, out=dropped), out=dropped)
    torch.bmm(gradient, dropped, out=by_value)
    torch.bmm(gradient.mT, value, out=by_score)
    by_score.mul_(dropped).addcmul_(weights, shared, value=-1)
    torch.bmm(key, by_score.mT, out=by_query)
    torch.bmm(query, by_score, out=by_key)


def _split(query, key, *others):
    """Cuts along the heads; yields a tuple for each group, with `None` for each `None`."""
    size = _group_size(query, key)
    parts = (itertools.repeat(None) if x is None else x.split(size) for x in (query, key, *others))
    return zip(*parts, strict=False)


def _make_buffers(query, key, count):
    shape = (_group_size(query, key), query.shape[2], key.shape[2])
    return [query.new_empty(shape) for _ in range(count)]


def _group_size(query, key):
    fitting = GROUP_BYTES // (4 * query.shape[2] * key.shape[2])
    return min(max(1, fitting), len(query))


def _compute_scores(query, key, bias, out):
    torch.bmm(query.mT, key, out=out)
    return out if bias is None else out.add_(bias)


def _exponentiate(x):
    """Exponentials, in place, zero where they are far below the rounding of a sum near 1.

    Smaller weights, and their products with gradients, are subnormal numbers, which are slow.
    """
    return torch.threshold_(x, _MIN_LOG_WEIGHT, -torch.inf).exp_()


def _draw_words(heads, queries, keys, seed):
    """Draws a random odd word for each query of each head and any word for each of its keys."""
    first, second = seed.tolist()
    # A generator takes 32 bits: spread `first`, as neighbouring seeds meet in a sum.
    generator = torch.Generator().manual_seed((first * 0x9E3779B1 + second) % 2**32)
    rows, columns = (
        torch.empty(shape, dtype=torch.int32).random_(-(2**31), 2**31, generator=generator)
        for shape in ((heads, queries, 1), (heads, 1, keys))
    )
    return rows.bitwise_or_(1), columns


def _decide(rows, columns, dropout_rate, out):
    """Decides what dropout keeps: a one or a zero, by the product of two random words.

    Multiplicative hashing: an odd factor permutes the 2^32 words, so each product is uniform and
    the products of a row are independent. It is far cheaper than `bernoulli_`.
    """
    out = out.view(torch.int32)
    return torch.mul(rows, columns, out=out).ge_(round(dropout_rate * 2**32) - 2**31)


def _multiply_by_bit(x, bits, out):
    """Multiplies floats by ones and zeros as integers: the same result without a conversion."""
    torch.mul(x.view(torch.int32), bits, out=out.view(torch.int32))
