"""A block that mixes tokens by a convolution, and attention between a few slots, as in GLMix."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import keras
import numpy as np
from keras import ops

from lsmha_keras.arguments import grid, plain
from lsmha_keras.attention.registry import make_attention
from lsmha_keras.errors import InputError
from lsmha_keras.layers.depthwise_conv import DepthwiseConv
from lsmha_keras.layers.mixer_block import MixerBlock
from lsmha_keras.layers.weight_arguments import initial_values, weight_arguments

_LOCAL_KERNEL_SIZE = 5


@keras.saving.register_keras_serializable(package="lsmha_keras")
class GLMixBlock(MixerBlock):
    """Attention between slots that tokens are grouped into, beside a convolution of the tokens.

    - slots `S`: the tokens, averaged over a coarse grid; `L = a norm(S) norm(LN(x))^T`, with a
      learnt number `a` and vectors of length one;
    - grouped: `G = softmax over tokens(L) LN(x)`; `G = attention(G)`;
    - `x = x + drop_path(softmax over slots(L)^T G + W2 depthwise5x5(W1 LN(x)))`
    - `x = x + drop_path(mlp(LN(x)))`

    For `T` tokens of width `C` and `M` slots, beside attention of `M` tokens and the perceptron:
    parameters `2 C^2 + 28 C + 1`, multiply-adds `3 T M C + T (2 C^2 + 25 C)`.

    Args:
        num_heads: int, heads of the attention between slots.
        mlp_dim: int, width of the perceptron's hidden layer.
        grid_shape: pair of ints, `(grid_height, grid_width)` of the tokens.
        slot_shape: pair of ints, the coarse grid of the slots. Defaults to `(4, 4)`.
        head_dim, attention_dropout, use_qkv_bias, attention, attention_options: of the attention,
            as in `TransformerBlock`; kinds that need a grid get `slot_shape`.
        **kwargs: the other arguments of `TransformerBlock`.

    Call arguments:
        x: tokens, float tensor of shape `(batch, grid_height * grid_width, channels)`.
        training: bool or `None`.

    Returns:
        A tensor of the shape of `x`, in the compute dtype.

    Raises:
        ValueError: if an argument is out of range, there are more slots than tokens in a direction,
            or the number of tokens does not fit the grid.

    Example:

    ```python
    block = lsmha_keras.GLMixBlock(num_heads=16, mlp_dim=128, grid_shape=(8, 8))
    block(np.zeros((2, 64, 128), "float32"))  # (2, 64, 128)
    ```

    References:
        - [Zhu et al., 2024](https://arxiv.org/abs/2411.14429)
    """

    def __init__(
        self,
        num_heads: int,
        mlp_dim: int,
        grid_shape: Sequence[int],
        slot_shape: Sequence[int] = (4, 4),
        head_dim: int | None = None,
        attention_dropout: float = 0.0,
        use_qkv_bias: bool = False,
        attention: str = "multi_head",
        attention_options: Mapping[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(grid_shape, mlp_dim, **kwargs)
        self.num_heads = plain(num_heads)
        self.slot_shape = grid(slot_shape)
        if any(few > many for few, many in zip(self.slot_shape, self.grid_shape, strict=True)):
            raise InputError(
                "There can be no more slots than tokens in a direction. Received: "
                f"slot_shape={slot_shape}, grid_shape={grid_shape}"
            )
        self.head_dim = plain(head_dim)
        self.attention_dropout = plain(attention_dropout)
        self.use_qkv_bias = plain(use_qkv_bias)
        self.attention_kind = attention
        self.attention_options = None if attention_options is None else dict(attention_options)

    def make_mixer(self) -> Any:
        attention = make_attention(
            self.attention_kind,
            self.num_heads,
            grid_shape=self.slot_shape,
            options=self.attention_options,
            head_dim=self.head_dim,
            dropout=self.attention_dropout,
            use_qkv_bias=self.use_qkv_bias,
            dtype=self.dtype_policy,
            name="attention",
            **weight_arguments(self, "kernel", "bias"),
        )
        return SlotMixing(
            self.grid_shape,
            self.slot_shape,
            attention,
            self.make_dense,
            depthwise_regularizer=self.kernel_regularizer,
            depthwise_constraint=self.kernel_constraint,
            dtype=self.dtype_policy,
            name="mixer",
        )

    def call(self, x, training=None):
        mixed = self.mixer(self.mixer_norm(x), x, training=training)
        x = x + self.drop_path(mixed, training=training)
        return x + self.drop(self.mlp(self.mlp_norm(x), training), training)

    def get_config(self):
        return {
            **super().get_config(),
            "num_heads": self.num_heads,
            "slot_shape": self.slot_shape,
            "head_dim": self.head_dim,
            "attention_dropout": self.attention_dropout,
            "use_qkv_bias": self.use_qkv_bias,
            "attention": self.attention_kind,
            "attention_options": self.attention_options,
        }


class SlotMixing(keras.layers.Layer):
    """What `GLMixBlock` does between its first normalisation and its first sum.

    Args:
        grid_shape: `(grid_height, grid_width)` of the tokens.
        slot_shape: the grid of the slots.
        attention: layer that mixes the slots, not built yet.
        make_dense: function that makes a dense layer of a name and a number of units.
        depthwise_regularizer, depthwise_constraint: those of the convolution.
        **kwargs: base layer arguments, such as `name` and `dtype`.

    Call arguments:
        x: normalised tokens, `(batch, tokens, channels)`.
        tokens: the same before the normalisation, whose averages are the first slots.
        training: bool or `None`.
    """

    def __init__(
        self,
        grid_shape,
        slot_shape,
        attention,
        make_dense,
        depthwise_regularizer=None,
        depthwise_constraint=None,
        **kwargs,
    ):
        super().__init__(**kwargs)
        self.grid_shape = grid_shape
        self.attention = attention
        self._averages = slot_averages(grid_shape, slot_shape)
        self._make_dense = make_dense
        self.local_conv = DepthwiseConv(
            _LOCAL_KERNEL_SIZE,
            depthwise_initializer=initial_values(keras.initializers.HeNormal()),
            depthwise_regularizer=depthwise_regularizer,
            depthwise_constraint=depthwise_constraint,
            dtype=self.dtype_policy,
            name="local_conv",
        )

    def build(self, input_shape):
        channels = input_shape[-1]
        self.scale = self.add_weight(
            name="scale",
            shape=(),
            initializer=initial_values(keras.initializers.Constant(channels**-0.5)),
            autocast=False,
        )
        self.attention.build((input_shape[0], len(self._averages), channels))
        self.local_in = self._make_dense("local_in", channels)
        self.local_out = self._make_dense("local_out", channels)
        self.local_in.build(input_shape)
        self.local_conv.build((input_shape[0], *self.grid_shape, channels))
        self.local_out.build(input_shape)

    def call(self, x, tokens, training=None):
        # float32 up to the softmax: cosines near 1 have steps of 2^-8 in bfloat16.
        slots = ops.matmul(self._averages, ops.cast(tokens, "float32"))
        wide = ops.cast(x, "float32")
        similarity = self.scale * ops.matmul(
            ops.normalize(slots), ops.swapaxes(ops.normalize(wide), 1, 2)
        )  # (batch, slots, tokens)
        slots = ops.cast(ops.matmul(ops.softmax(similarity), wide), x.dtype)
        slots = self.attention(slots, training=training)
        shares = ops.softmax(ops.swapaxes(similarity, 1, 2))
        spread = ops.matmul(ops.cast(shares, x.dtype), slots)

        local, shape = self.local_in(x), ops.shape(x)
        local = ops.reshape(local, (shape[0], *self.grid_shape, shape[-1]))
        local = self.local_out(ops.reshape(self.local_conv(local), shape))
        return spread + local

    def count_multiply_adds(self, tokens):
        """Returns the multiply-adds of grouping for one sample, an int: `3 T M C`."""
        return 3 * tokens * len(self._averages) * self.local_in.units

    def compute_output_shape(self, input_shape, tokens_shape=None):
        return tuple(input_shape)


def slot_averages(grid_shape, slot_shape):
    """Returns the matrix `(slots, tokens)` of averages over even parts of a grid.

    Where sides do not divide, parts overlap by a row or column.
    """
    sides = [
        np.stack(
            [
                (np.arange(many) >= i * many // few) & (np.arange(many) < -((i + 1) * -many // few))
                for i in range(few)
            ]
        )
        for many, few in zip(grid_shape, slot_shape, strict=True)
    ]
    members = np.einsum("ih,jw->ijhw", *(side.astype("float32") for side in sides))
    members = members.reshape(slot_shape[0] * slot_shape[1], -1)
    return members / members.sum(-1, keepdims=True)
