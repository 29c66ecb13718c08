"""Sparse heads: attention weights that are zero for most tokens."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
from keras import ops

from lsmha_keras.arguments import positive_int
from lsmha_keras.attention.explicit import explicit_attention
from lsmha_keras.errors import InputError
from lsmha_keras.layers.attention_core import project_heads
from lsmha_keras.layers.large_scale_multi_head_attention import LargeScaleMultiHeadAttention

_NORMALISERS = ("top_k", "entmax15", "sparsemax")


@keras.saving.register_keras_serializable(package="lsmha_keras")
class SparseHeads(LargeScaleMultiHeadAttention):
    """Multi-head attention whose weights are exactly zero for most tokens.

    `"top_k"` is a softmax over the `k` largest scores of each query; `"entmax15"` and `"sparsemax"`
    choose the number themselves. The weights of a query depend on all of its scores, sorted, so the
    many-head core cannot be used. Zeros save no time.

    Parameters and multiply-adds are plain attention's, beside a sort of `H T^2` scores.

    Args:
        num_heads: int, number of heads.
        normaliser: `"top_k"`, `"entmax15"` or `"sparsemax"`. Defaults to `"top_k"`.
        k: int, how many tokens a query attends to with `"top_k"`; all if there are fewer. Defaults
            to `8`.
        **kwargs: arguments of `LargeScaleMultiHeadAttention`.

    Raises:
        ValueError: if `normaliser` is unknown or `k` is not a positive int.

    References:
        - [Peters et al., 2019](https://arxiv.org/abs/1905.05702), 1.5-entmax
        - [Martins and Astudillo, 2016](https://arxiv.org/abs/1602.02068), sparsemax
        - [Zhao et al., 2019](https://arxiv.org/abs/1912.11637), the largest scores
    """

    def __init__(
        self, num_heads: int, normaliser: str = "top_k", k: int = 8, **kwargs: Any
    ) -> None:
        super().__init__(num_heads, **kwargs)
        if normaliser not in _NORMALISERS:
            raise InputError(
                f"`normaliser` must be one of {', '.join(_NORMALISERS)}. "
                f"Received: normaliser={normaliser!r}"
            )
        self.normaliser, self.k = normaliser, positive_int("k", k)

    def attend(self, x, padding_mask, training, return_attention_scores):
        query, key, value = project_heads(self.qkv, x, self.num_heads)
        functions = {"top_k": self._top_k, "entmax15": _entmax15, "sparsemax": _sparsemax}
        heads, weights = explicit_attention(
            query,
            key,
            value,
            padding_mask,
            **self.dropout_options(training),
            normalise=functions[self.normaliser],
        )
        return heads, weights if return_attention_scores else None

    def _top_k(self, scores):
        lowest = kth_largest(ops.stop_gradient(scores), min(self.k, scores.shape[-1]))
        return ops.softmax(ops.where(scores < lowest, -np.inf, scores), axis=-1)

    def multi_head_weights(self):
        return super().multi_head_weights()[0], False

    def take_multi_head_weights(self, weights):
        super().take_multi_head_weights(weights)
        return False

    def get_config(self):
        return {**super().get_config(), "normaliser": self.normaliser, "k": self.k}


def kth_largest(scores, k):
    """Returns the `k`-th largest of each row, `(..., 1)`."""
    if keras.config.backend() == "jax":
        return _kth_largest_by_halving(scores, k)
    return ops.top_k(scores, k)[0][..., -1:]


def _kth_largest_by_halving(scores, k):
    """The same from 32 comparisons of all scores: XLA's sort of short rows on a CPU is slow."""
    import jax

    def to_float(ordered):
        bits = jax.numpy.where(ordered < 0, ordered ^ 0x7FFFFFFF, ordered)
        return jax.lax.bitcast_convert_type(bits, "float32")

    bits = jax.lax.bitcast_convert_type(scores, "int32")
    # Floats in the order of integers: negative ones have their magnitude turned around.
    ordered = jax.numpy.where(bits < 0, bits ^ 0x7FFFFFFF, bits)

    def raise_bound(i, bound):
        # The lowest integer plus its bits, from the highest down; the sum wraps around once.
        higher = bound + jax.numpy.left_shift(jax.numpy.int32(1), 31 - i)
        enough = jax.numpy.sum(ordered >= higher, axis=-1, keepdims=True) >= k
        return jax.numpy.where(enough, higher, bound)

    lowest = jax.numpy.full((*scores.shape[:-1], 1), -(2**31), "int32")
    return to_float(jax.lax.fori_loop(0, 32, raise_bound, lowest))


def _sparsemax(scores):
    """Projects each row of scores onto the probabilities."""
    z = _shift(scores)
    ordered, ranks = _sort(z)
    sums = ops.cumsum(ordered, axis=-1)
    count = _count(1 + ranks * ordered > sums)
    threshold = (_take(sums, count) - 1) / ops.cast(count, z.dtype)
    return ops.maximum(z - threshold, 0)


def _entmax15(scores):
    """The 1.5-entmax of each row of scores, exactly, by sorting."""
    z = _shift(scores / 2)
    ordered, ranks = _sort(z)
    mean = ops.cumsum(ordered, axis=-1) / ranks
    mean_square = ops.cumsum(ordered**2, axis=-1) / ranks
    delta = 1 / ranks - (mean_square - mean**2)
    # Where this is not positive the threshold is not used, and a root of zero has no gradient.
    thresholds = mean - ops.where(delta > 0, ops.sqrt(ops.where(delta > 0, delta, 1)), 0)
    count = _count(thresholds <= ordered)
    return ops.square(ops.maximum(z - _take(thresholds, count), 0))


def _shift(scores):
    # Both solutions are zero for scores that are one or more below the maximum.
    return ops.maximum(scores - ops.max(scores, axis=-1, keepdims=True), -1)


def _sort(z):
    ordered = -ops.sort(-z, axis=-1)
    return ordered, ops.cast(ops.arange(1, z.shape[-1] + 1), z.dtype)


def _count(marks):
    return ops.sum(ops.cast(marks, "int32"), axis=-1, keepdims=True)


def _take(values, count):
    return ops.take_along_axis(values, count - 1, axis=-1)
