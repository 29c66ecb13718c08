"""Clustered heads: groups of heads share one score map."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
from keras import ops

from lsmha_keras.arguments import plain
from lsmha_keras.errors import InputError
from lsmha_keras.layers.attention_core import split_heads
from lsmha_keras.layers.head_weights import merged_weights
from lsmha_keras.layers.large_scale_multi_head_attention import LargeScaleMultiHeadAttention


@keras.saving.register_keras_serializable(package="lsmha_keras")
class ClusteredHeads(LargeScaleMultiHeadAttention):
    """Multi-head attention with fewer score maps than heads.

    Each head has its own values and attends where its group attends. Heads that share a map are one
    head with wide values, `[A V_1 | A V_2] = A [V_1 | V_2]`, and are computed that way, in the
    many-head core. There are fewer scores, and scores are what makes many heads slow.

    Per image of `T` tokens of width `C`, with `m` maps, `d = head_dim` and `I = num_heads * d`:
    parameters `2 C m d + 2 C I + C`, multiply-adds `2 T C (m d + I) + T^2 (m d + I)`, scores
    `m T^2`.

    Args:
        num_heads: int, number of heads.
        map_of_head: int, the number of maps, which groups of equal size share; or a list with the
            map of each head, numbered from 0 without gaps. Defaults to `None`, one map
            for every four heads.
        **kwargs: arguments of `LargeScaleMultiHeadAttention`.

    Raises:
        ValueError: if `map_of_head` does not fit the heads.

    References:
        - [Agarwal et al., 2024](https://arxiv.org/abs/2403.08058), clusters in trained models
    """

    def __init__(
        self, num_heads: int, map_of_head: Sequence[int] | None = None, **kwargs: Any
    ) -> None:
        super().__init__(num_heads, **kwargs)
        self.map_of_head = plain(map_of_head)
        heads, maps = self.num_heads, self.map_of_head
        if maps is None:
            maps = max(1, heads // 4) if heads % 4 == 0 else heads
        if isinstance(maps, int) and maps > 0 and heads % maps == 0:
            maps = [head // (heads // maps) for head in range(heads)]
        if (
            not isinstance(maps, (list, tuple))
            or len(maps) != heads
            or sorted(set(maps)) != list(range(len(set(maps))))
        ):
            raise InputError(
                f"`map_of_head` must be a divisor of {heads}, the number of heads, or a list of as "
                f"many maps, numbered from 0 without gaps. Received: map_of_head={map_of_head}"
            )
        self._maps = np.asarray(maps)
        self._num_maps = len(set(maps))

    def build_heads(self, input_shape):
        self.query_key = self.make_dense("query_key", 2 * self._num_maps * self.width, input_shape)
        self.value = self.make_dense("value", self.num_heads * self.width, input_shape)
        members = [np.flatnonzero(self._maps == i) for i in range(self._num_maps)]
        self._largest = max(map(len, members))
        # The heads of each map, filled up to the largest by repeating the first.
        filled = [np.resize(heads, self._largest) for heads in members]
        self._order = np.concatenate(filled)
        self._place = np.asarray([np.argmax(self._order == h) for h in range(self.num_heads)])

    def attend(self, x, padding_mask, training, return_attention_scores):
        batch, tokens = ops.shape(x)[:2]
        query, key = ops.split(split_heads(self.query_key(x), 2 * self._num_maps), 2, axis=1)
        # (batch, tokens, maps * largest, head_dim) -> (batch, maps, tokens, largest * head_dim)
        value = ops.reshape(self.value(x), (batch, tokens, self.num_heads, self.width))
        value = ops.take(value, self._order, axis=2)
        shape = (batch, tokens, self._num_maps, self._largest * self.width)
        value = ops.swapaxes(ops.reshape(value, shape), 1, 2)
        wide, scores = self.attend_core(
            query, key, value, padding_mask, training, return_attention_scores
        )
        shape = (batch, tokens, self._num_maps * self._largest, self.width)
        heads = ops.take(ops.reshape(ops.swapaxes(wide, 1, 2), shape), self._place, axis=2)
        if return_attention_scores:
            scores = ops.take(scores, self._maps, axis=1)
        return ops.swapaxes(heads, 1, 2), scores

    def count_multiply_adds(self, tokens):
        inner_dim, hidden_dim = self.projection.kernel.shape
        both = self._num_maps * self.width + inner_dim
        return tokens * (2 * hidden_dim * both + tokens * both)

    def multi_head_weights(self):
        shared = self.read_dense(self.query_key, 2)
        return [*(w[:, self._maps] for w in shared), *self.read_dense(self.value, 1)], True

    def take_multi_head_weights(self, weights):
        *own, value = weights
        shared = [
            np.stack([w[:, self._maps == i].mean(axis=1) for i in range(self._num_maps)], axis=1)
            for w in own
        ]
        self.write_dense(self.query_key, shared)
        self.write_dense(self.value, [value])
        return all(np.array_equal(w, s[:, self._maps]) for w, s in zip(own, shared, strict=True))

    def take_maps(self, layer: LargeScaleMultiHeadAttention, heads: Sequence[int]) -> None:
        """Takes the weights of plain attention, with the queries and keys of some heads only.

        Args:
            layer: built layer of plain attention with as many heads, which is left as it is.
            heads: the head that each map comes from.

        Raises:
            ValueError: if the layer is quantised.
        """
        query, key, value = layer.read_dense(layer.qkv, 3)
        self.write_dense(self.query_key, [part[:, list(heads)] for part in (query, key)])
        self.write_dense(self.value, [value])
        self.projection.set_weights(merged_weights(layer.projection))

    def pruned_options(self, keep):
        # Renumbered, without maps that no remaining head uses.
        return {"map_of_head": np.unique(self._maps[keep], return_inverse=True)[1].tolist()}

    def take_head_weights(self, layer, keep):
        self.take_dense("query_key", layer, np.unique(layer._maps[keep]), 2)
        self.take_dense("value", layer, keep, 1)

    def get_config(self):
        return {**super().get_config(), "map_of_head": self.map_of_head}
