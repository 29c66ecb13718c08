"""Attention whose weights are learnt and not computed from the image: a control."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras
from keras import ops, random

from lsmha_keras.arguments import grid
from lsmha_keras.errors import InputError
from lsmha_keras.layers.attention_core import split_heads
from lsmha_keras.layers.large_scale_multi_head_attention import LargeScaleMultiHeadAttention


@keras.saving.register_keras_serializable(package="lsmha_keras")
class NormLin(LargeScaleMultiHeadAttention):
    """Heads that mix tokens by learnt weights, the same for every image.

    Head `h` computes `A_h V_h`, where the rows of `A_h = softplus(W_h)` are divided by their sums.
    It tells how much of a result needs weights that depend on the image at all. The number of
    tokens is fixed; padding and attention scores are refused.

    Per image of `T` tokens of width `C`, with `I = num_heads * head_dim`: parameters
    `2 C I + H T^2 + C`, multiply-adds `2 T C I + T^2 I`, scores none.

    Args:
        num_heads: int, number of heads, `H`.
        grid_shape: `(grid_height, grid_width)` of the tokens.
        **kwargs: arguments of `LargeScaleMultiHeadAttention`.

    Raises:
        ValueError: if there is a padding mask, scores are asked for, or the grid has another number
            of tokens.

    References:
        - [Yue et al., 2025](https://arxiv.org/abs/2505.08550), one matrix instead of attention
    """

    has_scores = False

    def __init__(self, num_heads: int, grid_shape: Sequence[int], **kwargs: Any) -> None:
        super().__init__(num_heads, **kwargs)
        self.grid_shape = grid(grid_shape)

    def build_heads(self, input_shape):
        tokens = self.grid_shape[0] * self.grid_shape[1]
        if input_shape[1] not in (None, tokens):
            raise InputError(
                f"The tokens of a grid {self.grid_shape} are {tokens}. "
                f"Received: input_shape={tuple(input_shape)}"
            )
        self.value = self.make_dense("value", self.num_heads * self.width, input_shape)
        self.mixing = self.add_weight(
            shape=(self.num_heads, tokens, tokens), initializer="random_normal", name="mixing"
        )

    def attend(self, x, padding_mask, training, return_attention_scores):
        if padding_mask is not None or return_attention_scores:
            raise InputError(
                "`NormLin` has fixed weights for a whole grid, no scores: it takes no mask and "
                "returns none. Received: "
                f"padding_mask={'none' if padding_mask is None else tuple(padding_mask.shape)}, "
                f"return_attention_scores={return_attention_scores}"
            )
        weights = ops.softplus(ops.cast(self.mixing, "float32"))
        weights = weights / ops.sum(weights, axis=-1, keepdims=True)
        if training and self.dropout > 0:
            weights = random.dropout(weights, self.dropout, seed=self.seed_generator)
        value = split_heads(self.value(x), self.num_heads)
        return ops.matmul(ops.cast(weights, value.dtype), value), None

    def count_multiply_adds(self, tokens):
        inner_dim, hidden_dim = self.projection.kernel.shape
        return tokens * (2 * hidden_dim * inner_dim + tokens * inner_dim)

    def multi_head_weights(self):
        raise InputError("`NormLin` has no queries and keys. Received: a conversion to attention")

    def take_multi_head_weights(self, weights):
        self.write_dense(self.value, weights[2:])
        return False

    def take_head_weights(self, layer, keep):
        self.take_dense("value", layer, keep, 1)
        self.mixing.assign(ops.convert_to_numpy(layer.mixing)[keep])

    def get_config(self):
        return {**super().get_config(), "grid_shape": self.grid_shape}
