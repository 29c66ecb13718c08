"""Talking heads: scores and weights are mixed over the heads."""

import keras
import numpy as np
from keras import ops

from lsmha_keras.attention.explicit import explicit_attention, mix_maps
from lsmha_keras.layers.attention_core import project_heads
from lsmha_keras.layers.large_scale_multi_head_attention import LargeScaleMultiHeadAttention


@keras.saving.register_keras_serializable(package="lsmha_keras")
class TalkingHeads(LargeScaleMultiHeadAttention):
    """Multi-head attention whose heads exchange scores before the softmax and weights after it.

    Head `h` sums the scores of all heads with row `h` of one `num_heads x num_heads` matrix, and
    the weights with that of another; both are the identity at the start. A tile of scores depends
    on all heads, so the many-head core cannot be used, and many heads are expensive.

    Per image of `T` tokens, beside plain attention's: parameters `2 H^2`, multiply-adds
    `2 T^2 H^2`.

    Args:
        num_heads: int, number of heads.
        **kwargs: arguments of `LargeScaleMultiHeadAttention`.

    References:
        - [Shazeer et al., 2020](https://arxiv.org/abs/2003.02436)
    """

    def build_heads(self, input_shape):
        super().build_heads(input_shape)
        shape = (self.num_heads, self.num_heads)
        self.score_mixing = self.add_weight(
            shape=shape, initializer="identity", name="score_mixing"
        )
        self.weight_mixing = self.add_weight(
            shape=shape, initializer="identity", name="weight_mixing"
        )

    def attend(self, x, padding_mask, training, return_attention_scores):
        query, key, value = project_heads(self.qkv, x, self.num_heads)
        heads, weights = explicit_attention(
            query,
            key,
            value,
            padding_mask,
            **self.dropout_options(training),
            change_scores=lambda scores: mix_maps(self.score_mixing, scores),
            change_weights=lambda weights: mix_maps(self.weight_mixing, weights),
        )
        return heads, weights if return_attention_scores else None

    def count_multiply_adds(self, tokens):
        return super().count_multiply_adds(tokens) + 2 * tokens**2 * self.num_heads**2

    def head_units(self):
        self.refuse_pruning("each head's scores are made of all heads' scores")

    def multi_head_weights(self):
        identity = np.eye(self.num_heads)
        mixing = (self.score_mixing, self.weight_mixing)
        same = all(np.array_equal(ops.convert_to_numpy(w), identity) for w in mixing)
        return super().multi_head_weights()[0], same
