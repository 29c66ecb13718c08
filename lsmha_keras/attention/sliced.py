"""Optimised, efficient and super attention: heads read slices of the tokens."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
from keras import ops

from lsmha_keras.arguments import grid, plain
from lsmha_keras.errors import InputError
from lsmha_keras.layers.attention_core import split_heads
from lsmha_keras.layers.large_scale_multi_head_attention import LargeScaleMultiHeadAttention


@keras.saving.register_keras_serializable(package="lsmha_keras")
class SlicedAttention(LargeScaleMultiHeadAttention):
    """Multi-head attention without a projection of the values, and of the keys if asked for.

    Head `h` takes channels `h d` to `(h + 1) d` of the tokens as its values, so heads have the
    width `C / num_heads`. Known as optimised attention; with `slice_keys` efficient, with
    `mix_tokens` super attention. There a learnt `T x T` matrix, the identity at the start, mixes
    the values' tokens first, which ties the layer to one number of tokens and excludes padding.

    Per image of `T` tokens of width `C`: parameters `3 C^2`, `2 C^2` with sliced keys, and `T^2`
    for mixing, beside the biases; multiply-adds `T` times the kernels', `+ 2 T^2 C`, and `T^2 C`
    for mixing.

    Args:
        num_heads: int that divides `C`.
        slice_keys: bool. Defaults to `False`.
        mix_tokens: bool. Defaults to `False`.
        grid_shape: `(grid_height, grid_width)` of the tokens, needed to mix them.
        **kwargs: arguments of `LargeScaleMultiHeadAttention`.

    Raises:
        ValueError: if the heads are not as wide as the tokens together, there is a padding mask
            while tokens are mixed, or the grid is missing or has another number of tokens.

    References:
        - [Hosseini and Hosseini, 2024](https://arxiv.org/abs/2403.01643)
    """

    def __init__(
        self,
        num_heads: int,
        slice_keys: bool = False,
        mix_tokens: bool = False,
        grid_shape: Sequence[int] | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(num_heads, **kwargs)
        self.slice_keys, self.mix_tokens = plain(slice_keys), plain(mix_tokens)
        self.grid_shape = None if grid_shape is None else grid(grid_shape)
        if self.mix_tokens and self.grid_shape is None:
            raise InputError(
                "A matrix that mixes tokens needs to know how many there are. "
                f"Received: mix_tokens={mix_tokens}, grid_shape=None"
            )

    def build_heads(self, input_shape):
        hidden_dim = input_shape[-1]
        if self.num_heads * self.width != hidden_dim:
            raise InputError(
                "Slices of the tokens are as wide as these, divided by the heads; leave out "
                f"`head_dim`. Received: head_dim={self.head_dim}, num_heads={self.num_heads}, "
                f"token width {hidden_dim}"
            )
        projections = 1 if self.slice_keys else 2
        self.qkv = self.make_dense("qkv", projections * hidden_dim, input_shape)
        if self.mix_tokens:
            tokens = self.grid_shape[0] * self.grid_shape[1]
            if input_shape[1] not in (None, tokens):
                raise InputError(
                    f"The tokens of a grid {self.grid_shape} are {tokens}. "
                    f"Received: input_shape={input_shape}"
                )
            self.token_mixing = self.add_weight(
                shape=(tokens, tokens), initializer="identity", name="token_mixing"
            )

    def attend(self, x, padding_mask, training, return_attention_scores):
        x = ops.cast(x, self.compute_dtype)
        value = split_heads(x, self.num_heads)
        if self.slice_keys:
            query, key = split_heads(self.qkv(x), self.num_heads), value
        else:
            query, key = ops.split(split_heads(self.qkv(x), 2 * self.num_heads), 2, axis=1)
        if self.mix_tokens:
            if padding_mask is not None:
                raise InputError(
                    "Super attention mixes all tokens of a grid, padding too: it takes no mask. "
                    f"Received: padding_mask of shape {tuple(padding_mask.shape)}"
                )
            value = ops.matmul(ops.cast(self.token_mixing, value.dtype), value)
        return self.attend_core(query, key, value, padding_mask, training, return_attention_scores)

    def count_multiply_adds(self, tokens):
        hidden_dim = self.projection.kernel.shape[0]
        kernels = (2 if self.slice_keys else 3) * hidden_dim**2
        products = (3 if self.mix_tokens else 2) * tokens * hidden_dim
        return tokens * (kernels + products)

    def multi_head_weights(self):
        hidden_dim = self.projection.kernel.shape[0]
        found = self.read_dense(self.qkv, 1 if self.slice_keys else 2)
        identity = np.eye(hidden_dim, dtype="float32")
        identity = identity.reshape(hidden_dim, self.num_heads, self.width)
        if self.use_qkv_bias:
            identity = np.concatenate([identity, np.zeros_like(identity[:1])])
        weights = [*found, *[identity] * (3 - len(found))]
        if not self.mix_tokens:
            return weights, True
        mixing = ops.convert_to_numpy(self.token_mixing)
        return weights, np.array_equal(mixing, np.eye(len(mixing)))

    def take_multi_head_weights(self, weights):
        self.write_dense(self.qkv, weights[: 1 if self.slice_keys else 2])
        return False

    def head_units(self):
        self.refuse_pruning("the heads share out the channels of the tokens")

    def get_config(self):
        return {
            **super().get_config(),
            "slice_keys": self.slice_keys,
            "mix_tokens": self.mix_tokens,
            "grid_shape": self.grid_shape,
        }
