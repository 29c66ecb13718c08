"""Grouped-query and multi-query attention: groups of heads share keys and values."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
from keras import ops

from lsmha_keras.arguments import positive_int
from lsmha_keras.errors import InputError
from lsmha_keras.layers.attention_core import repeat_heads, split_heads
from lsmha_keras.layers.large_scale_multi_head_attention import LargeScaleMultiHeadAttention

# Heads that share keys and values, unless told otherwise: as in the models of 32 query heads and 8
# key-value heads that made this kind known.
_GROUP = 4


@keras.saving.register_keras_serializable(package="lsmha_keras")
class GroupedQueryAttention(LargeScaleMultiHeadAttention):
    """Multi-head attention in which groups of heads share their keys and values.

    With `g` key-value heads, head `h` attends to keys and values `h // (num_heads / g)`. One is
    multi-query attention, as many as heads is plain attention. In a classifier this saves
    parameters, not time: there are as many scores as before.

    Per image of `T` tokens of width `C`, with `I = num_heads * head_dim`: parameters
    `2 C I + 2 C g d + C`, multiply-adds `2 T C (I + g d) + 2 T^2 I`, scores `H T^2`.

    Args:
        num_heads: int, number of heads.
        num_kv_heads: int that divides `num_heads`, or `None` for groups of four heads, or of the
            next larger size that divides them; fewer than four are one group. Defaults to `None`.
        **kwargs: arguments of `LargeScaleMultiHeadAttention`.

    Raises:
        ValueError: if `num_kv_heads` does not divide `num_heads`.

    Example:

    ```python
    backbone = lsmha_keras.CCTBackbone(
        num_heads=16, attention="grouped", attention_options={"num_kv_heads": 4}
    )
    ```

    References:
        - [Shazeer, 2019](https://arxiv.org/abs/1911.02150), one head of keys and values
        - [Ainslie et al., 2023](https://arxiv.org/abs/2305.13245), groups of heads
    """

    def __init__(self, num_heads: int, num_kv_heads: int | None = None, **kwargs: Any) -> None:
        super().__init__(num_heads, **kwargs)
        if num_kv_heads is None:
            num_kv_heads = max(self.num_heads // _GROUP, 1)
            while self.num_heads % num_kv_heads:
                num_kv_heads -= 1
        self.num_kv_heads = positive_int("num_kv_heads", num_kv_heads)
        if self.num_heads % self.num_kv_heads:
            raise InputError(
                "`num_kv_heads` must divide `num_heads`, so that groups are equal. Received: "
                f"num_heads={num_heads}, num_kv_heads={num_kv_heads}"
            )

    def build_heads(self, input_shape):
        self.query = self.make_dense("query", self.num_heads * self.width, input_shape)
        self.key_value = self.make_dense(
            "key_value", 2 * self.num_kv_heads * self.width, input_shape
        )

    def attend(self, x, padding_mask, training, return_attention_scores):
        query = split_heads(self.query(x), self.num_heads)
        key_value = split_heads(self.key_value(x), 2 * self.num_kv_heads)
        group = self.num_heads // self.num_kv_heads
        key, value = (repeat_heads(part, group) for part in ops.split(key_value, 2, axis=1))
        return self.attend_core(query, key, value, padding_mask, training, return_attention_scores)

    def count_multiply_adds(self, tokens):
        inner_dim, hidden_dim = self.projection.kernel.shape
        shared = self.num_kv_heads * self.width
        return tokens * (2 * hidden_dim * (inner_dim + shared) + 2 * tokens * inner_dim)

    def multi_head_weights(self):
        group = self.num_heads // self.num_kv_heads
        query = self.read_dense(self.query, 1)
        key_value = self.read_dense(self.key_value, 2)
        return [*query, *(np.repeat(part, group, axis=1) for part in key_value)], True

    def take_multi_head_weights(self, weights):
        query, *key_value = weights
        shape = (query.shape[0], self.num_kv_heads, -1, self.width)
        means = [part.reshape(shape).mean(axis=2) for part in key_value]
        self.write_dense(self.query, [query])
        self.write_dense(self.key_value, means)
        return self.num_kv_heads == self.num_heads

    def head_units(self):
        group = self.num_heads // self.num_kv_heads
        if self.num_kv_heads == 1 or group == 1:
            return [[head] for head in range(self.num_heads)]
        return [list(range(g * group, (g + 1) * group)) for g in range(self.num_kv_heads)]

    def pruned_options(self, keep):
        return {"num_kv_heads": len(self._kept_groups(keep))}

    def take_head_weights(self, layer, keep):
        self.take_dense("query", layer, keep, 1)
        self.take_dense("key_value", layer, layer._kept_groups(keep), 2)

    def _kept_groups(self, keep):
        groups = np.asarray(keep) // (self.num_heads // self.num_kv_heads)
        found, counts = np.unique(groups, return_counts=True)
        if len(set(counts.tolist())) > 1:
            raise InputError(
                "Groups of heads that share keys and values stay equal: remove whole groups, or as "
                f"many heads from each. Received: {counts.tolist()} heads left in the groups "
                f"{found.tolist()}"
            )
        return found.tolist()

    def get_config(self):
        return {**super().get_config(), "num_kv_heads": self.num_kv_heads}
