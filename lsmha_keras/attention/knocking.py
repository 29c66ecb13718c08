"""Knocking heads: one small matrix, shared by all heads, between projection and scores."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
from keras import ops

from lsmha_keras.arguments import plain
from lsmha_keras.layers.attention_core import project_heads
from lsmha_keras.layers.large_scale_multi_head_attention import LargeScaleMultiHeadAttention


@keras.saving.register_keras_serializable(package="lsmha_keras")
class KnockingHeads(LargeScaleMultiHeadAttention):
    """Multi-head attention whose heads share transformations of queries, keys and values.

    `Q_h (I + D_Q)`, `K_h (I + D_K)`, `V_h (I + D_V)` with one `head_dim x head_dim` matrix for all
    heads each, zero at the start; weight decay then pulls towards plain attention. They fold into
    the kernels without a change of outputs (`to_multi_head`), so they change how a model learns and
    not what it can compute. Gated, only values are transformed, by
    `2 ((V_h (I + D_up)) * sigmoid(V_h D_gate)) (I + D_down)`, which does not fold.

    Per image of `T` tokens of width `C`, with `I = num_heads * head_dim`, beside plain attention's:
    parameters `3 head_dim^2`, multiply-adds `3 T I head_dim`.

    Args:
        num_heads: int, number of heads.
        gated: bool, whether values pass the gated unit instead. Defaults to `False`.
        **kwargs: arguments of `LargeScaleMultiHeadAttention`.

    References:
        - [Zhou et al., 2025](https://arxiv.org/abs/2510.23052)
    """

    def __init__(self, num_heads: int, gated: bool = False, **kwargs: Any) -> None:
        super().__init__(num_heads, **kwargs)
        self.gated = plain(gated)

    def build_heads(self, input_shape):
        super().build_heads(input_shape)
        names = ("up", "gate", "down") if self.gated else ("query", "key", "value")
        self.deltas = [
            self.add_weight(
                shape=(self.width, self.width), initializer="zeros", name=f"{name}_delta"
            )
            for name in names
        ]

    def attend(self, x, padding_mask, training, return_attention_scores):
        heads = project_heads(self.qkv, x, self.num_heads)
        deltas = [ops.cast(delta, self.compute_dtype) for delta in self.deltas]
        if self.gated:
            up, gate, down = deltas
            value = heads[2]
            opened = 2 * ops.sigmoid(ops.matmul(value, gate))
            value = (value + ops.matmul(value, up)) * opened
            heads = [*heads[:2], value + ops.matmul(value, down)]
        else:
            heads = [h + ops.matmul(h, delta) for h, delta in zip(heads, deltas, strict=True)]
        return self.attend_core(*heads, padding_mask, training, return_attention_scores)

    def count_multiply_adds(self, tokens):
        inner_dim = self.num_heads * self.width
        return super().count_multiply_adds(tokens) + 3 * tokens * inner_dim * self.width

    def multi_head_weights(self):
        weights, _ = super().multi_head_weights()
        deltas = [ops.convert_to_numpy(delta).astype("float64") for delta in self.deltas]
        if self.gated:
            return weights, not any(np.any(delta) for delta in deltas)
        # Folded in float64 and rounded once.
        folded = [w + w @ delta for w, delta in zip(weights, deltas, strict=True)]
        return [w.astype("float32") for w in folded], True

    def take_head_weights(self, layer, keep):
        super().take_head_weights(layer, keep)
        for delta, source in zip(self.deltas, layer.deltas, strict=True):
            delta.assign(source)

    def get_config(self):
        return {**super().get_config(), "gated": self.gated}
