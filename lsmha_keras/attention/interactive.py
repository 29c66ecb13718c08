"""Enhanced interactive attention: every query head meets every key head."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
from keras import ops

from lsmha_keras.arguments import plain
from lsmha_keras.attention.explicit import explicit_attention, mix_maps
from lsmha_keras.errors import InputError
from lsmha_keras.layers.attention_core import project_heads, repeat_heads
from lsmha_keras.layers.large_scale_multi_head_attention import LargeScaleMultiHeadAttention

_STDDEV = 0.02


@keras.saving.register_keras_serializable(package="lsmha_keras")
class InteractiveHeads(LargeScaleMultiHeadAttention):
    """Multi-head attention whose queries of one head meet the keys of all heads.

    `H` query heads and `H` key heads give `H^2` maps of scores. The inner interaction takes the `H`
    maps of a query head to `maps_per_head` maps; after a ReLU, the cross interaction takes the maps
    of all heads to one per head, whose softmax weights the head's values:

    `S_h = sum_{g, m} cross[g, m, h] relu(sum_k inner[g, k, m] Q_g K_k^T / sqrt(head_dim))`

    As `sum_k inner[g, k, m] Q_g K_k^T = Q_g (sum_k inner[g, k, m] K_k)^T`, keys are mixed first,
    and `H maps_per_head` maps are computed instead of `H^2`. This is the authors' efficient form,
    with one layer for each interaction. At the start it is plain attention: two maps of each head
    are its own scores and their negatives, and `relu(s) - relu(-s) = s`.

    Each map of scores depends on all heads, so the many-head core cannot be used. It is meant for a
    moderate number of heads.

    Per image of `T` tokens of width `C`, with `I = num_heads * head_dim` and `M = maps_per_head`:
    parameters `4 C I + C + 2 M H^2`, multiply-adds
    `T (4 C I + M H I) + T^2 ((M + 1) I + M H^2)`.

    Args:
        num_heads: int, number of heads, `H`.
        maps_per_head: int, at least 2. Defaults to `2`.
        **kwargs: arguments of `LargeScaleMultiHeadAttention`.

    Raises:
        ValueError: if there are fewer than two maps for each head.

    References:
        - [Zheng et al., 2022](https://arxiv.org/abs/2212.10197)
    """

    def __init__(self, num_heads: int, maps_per_head: int = 2, **kwargs: Any) -> None:
        super().__init__(num_heads, **kwargs)
        self.maps_per_head = plain(maps_per_head)
        if isinstance(self.maps_per_head, bool) or not isinstance(self.maps_per_head, int):
            raise InputError(
                f"`maps_per_head` must be an int. Received: maps_per_head={maps_per_head!r}"
            )
        if self.maps_per_head < 2:
            raise InputError(
                "`maps_per_head` must be 2 or more: one map keeps the scores above zero and one "
                f"those below. Received: maps_per_head={maps_per_head}"
            )

    def build_heads(self, input_shape):
        super().build_heads(input_shape)
        heads, maps = self.num_heads, self.maps_per_head
        self.inner = self.add_weight(
            shape=(heads, heads, maps), initializer=self._initial_inner, name="inner"
        )
        self.cross = self.add_weight(
            shape=(heads, maps, heads), initializer=self._initial_cross, name="cross"
        )

    def _initial_inner(self, shape, dtype=None):
        # Maps that the cross interaction does not use yet start at random, or they could not learn.
        values = keras.random.normal(shape, stddev=_STDDEV, dtype=dtype)
        own = np.zeros(shape, "float32")
        own[..., 0], own[..., 1] = np.eye(shape[0]), -np.eye(shape[0])
        used = np.arange(shape[-1]) < 2
        return ops.where(used, ops.cast(own, values.dtype), values)

    def _initial_cross(self, shape, dtype=None):
        return ops.cast(_plain_cross(shape), dtype or "float32")

    def attend(self, x, padding_mask, training, return_attention_scores):
        query, key, value = project_heads(self.qkv, x, self.num_heads)
        batch, heads, tokens, width = ops.shape(key)
        maps = heads * self.maps_per_head
        # (batch, key heads, tokens, width) -> (batch, query heads * maps, tokens, width)
        mixing = ops.reshape(ops.transpose(self.inner, (0, 2, 1)), (maps, heads))
        flat = ops.reshape(ops.cast(key, "float32"), (batch, heads, tokens * width))
        mixed = ops.reshape(
            ops.matmul(ops.cast(mixing, "float32"), flat), (batch, maps, tokens, width)
        )
        outputs, weights = explicit_attention(
            repeat_heads(query, self.maps_per_head),
            mixed,
            value,
            padding_mask,
            **self.dropout_options(training),
            change_scores=self._cross,
        )
        return outputs, weights if return_attention_scores else None

    def _cross(self, scores):
        """`(batch, heads * maps, tokens, tokens)` -> `(batch, heads, tokens, tokens)`."""
        cross = ops.reshape(self.cross, (-1, self.num_heads))
        return mix_maps(ops.transpose(cross), ops.relu(scores))

    def count_multiply_adds(self, tokens):
        inner_dim, hidden_dim = self.projection.kernel.shape
        heads, maps = self.num_heads, self.maps_per_head
        projected = 4 * hidden_dim * inner_dim + maps * heads * inner_dim
        paired = (maps + 1) * inner_dim + maps * heads**2
        return tokens * projected + tokens**2 * paired

    def head_units(self):
        self.refuse_pruning("each head's scores are made of all heads' queries and keys")

    def multi_head_weights(self):
        inner, cross = (ops.convert_to_numpy(w) for w in (self.inner, self.cross))
        eye = np.eye(self.num_heads)
        same = np.array_equal(inner[..., 0], eye) and np.array_equal(inner[..., 1], -eye)
        same = same and np.array_equal(cross, _plain_cross(cross.shape))
        return super().multi_head_weights()[0], same

    def get_config(self):
        return {**super().get_config(), "maps_per_head": self.maps_per_head}


def _plain_cross(shape):
    """The cross interaction of plain attention: the first map of a head less its second."""
    cross = np.zeros(shape, "float32")
    cross[:, 0], cross[:, 1] = np.eye(shape[0]), -np.eye(shape[0])
    return cross
