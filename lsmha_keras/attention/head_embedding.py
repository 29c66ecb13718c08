"""Head embeddings: one projection for all heads, and one vector for each."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
from keras import ops

from lsmha_keras.errors import InputError
from lsmha_keras.layers.attention_core import repeat_heads, split_heads
from lsmha_keras.layers.large_scale_multi_head_attention import LargeScaleMultiHeadAttention

_INITIALIZER = {"class_name": "RandomNormal", "config": {"stddev": 0.02}}


@keras.saving.register_keras_serializable(package="lsmha_keras")
class HeadEmbeddingAttention(LargeScaleMultiHeadAttention):
    """Multi-head attention whose heads differ by embeddings only.

    Queries, keys and values have one projection of width `d = head_dim` each, for all heads. Head
    `h` takes `q + e_h` (`combine="add"`) or `q * (1 + e_h)` (`"multiply"`), and likewise keys and
    values. Added, embeddings of keys have no effect (the softmax removes them) and are left out,
    and those of values are one constant per head. So heads differ in the salience they give a key,
    the same for every query.

    Per image of `T` tokens of width `C`, with `I = num_heads * d`: parameters
    `3 C d + 3 H d + C I + C` (`2 H d` when added), multiply-adds `3 T C d + T C I + 2 T^2 I`.

    Args:
        num_heads: int, number of heads, `H`.
        combine: `"multiply"` or `"add"`. Defaults to `"multiply"`.
        **kwargs: arguments of `LargeScaleMultiHeadAttention`.

    Raises:
        ValueError: if `combine` is neither.

    References:
        - [Xue and Aletras, 2023](https://arxiv.org/abs/2310.07911)
    """

    def __init__(self, num_heads: int, combine: str = "multiply", **kwargs: Any) -> None:
        super().__init__(num_heads, **kwargs)
        if combine not in ("multiply", "add"):
            raise InputError(
                f'`combine` must be "multiply" or "add". Received: combine={combine!r}'
            )
        self.combine = combine

    def build_heads(self, input_shape):
        self.qkv = self.make_dense("qkv", 3 * self.width, input_shape)
        kinds = ("query", "key", "value") if self.combine == "multiply" else ("query", "value")
        # Not zero: equal heads would stay equal.
        self.embeddings = {
            kind: self.add_weight(
                shape=(self.num_heads, 1, self.width),
                initializer=keras.initializers.deserialize(_INITIALIZER),
                name=f"{kind}_embedding",
            )
            for kind in kinds
        }

    def attend(self, x, padding_mask, training, return_attention_scores):
        shared = ops.split(split_heads(self.qkv(x), 3), 3, axis=1)
        heads = [self._embed(*pair) for pair in zip(("query", "key", "value"), shared, strict=True)]
        return self.attend_core(*heads, padding_mask, training, return_attention_scores)

    def _embed(self, kind, x):
        """`(batch, 1, tokens, head_dim)` -> `(batch, heads, tokens, head_dim)`."""
        if kind not in self.embeddings:
            return repeat_heads(x, self.num_heads)
        embedding = ops.cast(self.embeddings[kind], x.dtype)
        return x * (1 + embedding) if self.combine == "multiply" else x + embedding

    def count_multiply_adds(self, tokens):
        inner_dim, hidden_dim = self.projection.kernel.shape
        return tokens * (hidden_dim * (3 * self.width + inner_dim) + 2 * tokens * inner_dim)

    def multi_head_weights(self):
        if self.combine == "add" and not self.use_qkv_bias:
            raise InputError(
                "Added embeddings are biases, which this layer's `use_qkv_bias=False` leaves plain "
                "attention without. Received: combine='add', use_qkv_bias=False"
            )
        weights = dict(zip(("query", "key", "value"), self.read_dense(self.qkv, 3), strict=True))
        found = []
        for kind, weight in weights.items():
            weight = np.repeat(weight, self.num_heads, axis=1)
            if kind in self.embeddings:
                embedding = ops.convert_to_numpy(self.embeddings[kind])[None, :, 0]
                if self.combine == "multiply":
                    weight = weight * (1 + embedding)
                else:
                    weight[-1:] += embedding
            found.append(weight)
        return found, True

    def take_multi_head_weights(self, weights):
        self.write_dense(self.qkv, [part.mean(axis=1, keepdims=True) for part in weights])
        return False

    def take_head_weights(self, layer, keep):
        self.take_dense("qkv", layer, [0], 3)  # one projection for all heads
        for kind, embedding in self.embeddings.items():
            embedding.assign(ops.convert_to_numpy(layer.embeddings[kind])[keep])

    def get_config(self):
        return {**super().get_config(), "combine": self.combine}
