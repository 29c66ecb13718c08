"""Subspace attention, as derived for CRATE: one projection is query, key and value."""

import keras
import numpy as np

from lsmha_keras.layers.attention_core import split_heads
from lsmha_keras.layers.large_scale_multi_head_attention import LargeScaleMultiHeadAttention


@keras.saving.register_keras_serializable(package="lsmha_keras")
class SubspaceAttention(LargeScaleMultiHeadAttention):
    """Multi-head attention with `Q_h = K_h = V_h = X U_h`.

    A step that compresses the tokens of each head's subspace; the scores are symmetric.

    Per image of `T` tokens of width `C`, with `I = num_heads * head_dim`: parameters `2 C I + C`,
    multiply-adds `2 T C I + 2 T^2 I`, scores `H T^2`.

    Args:
        num_heads: int, number of subspaces.
        **kwargs: arguments of `LargeScaleMultiHeadAttention`.

    References:
        - [Yu et al., 2023](https://arxiv.org/abs/2306.01129)
    """

    def build_heads(self, input_shape):
        self.qkv = self.make_dense("qkv", self.num_heads * self.width, input_shape)

    def attend(self, x, padding_mask, training, return_attention_scores):
        heads = split_heads(self.qkv(x), self.num_heads)
        return self.attend_core(
            heads, heads, heads, padding_mask, training, return_attention_scores
        )

    def count_multiply_adds(self, tokens):
        inner_dim, hidden_dim = self.projection.kernel.shape
        return tokens * (2 * hidden_dim * inner_dim + 2 * tokens * inner_dim)

    def take_head_weights(self, layer, keep):
        self.take_dense("qkv", layer, keep, 1)

    def multi_head_weights(self):
        return self.read_dense(self.qkv, 1) * 3, True

    def take_multi_head_weights(self, weights):
        self.write_dense(self.qkv, [np.mean(weights, axis=0)])
        return False
