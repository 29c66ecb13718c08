"""Tokens that stand for groups of channels, for attention to look at."""

from __future__ import annotations

from typing import Any

import keras
from keras import ops

from lsmha_keras.arguments import positive_int
from lsmha_keras.errors import InputError
from lsmha_keras.layers.weight_arguments import (
    initial_values,
    set_weight_arguments,
    weight_arguments,
    weight_config,
)
from lsmha_keras.types import Constraint, Initializer, Regularizer


@keras.saving.register_keras_serializable(package="lsmha_keras")
class HeadTokens(keras.layers.Layer):
    """Makes one token of each group of channels: what the group holds in the mean.

    The mean token is cut into `num_groups` groups of channels. Each is projected to the width of a
    token by one matrix for all groups, and becomes `gelu(LN(.)) + position`, where the layer
    normalisation acts on groups of the same size, and the position is learnt for each group.

    For tokens of width `C`, with `g = C / num_groups`: parameters `g C + C + 2 g + num_groups C`,
    multiply-adds `C^2`.

    Args:
        num_groups: int that divides the width of the tokens; how many tokens are made.
        layer_norm_epsilon: float. Defaults to `1e-5`.
        kernel_initializer: initializer of the projection. Defaults to a truncated normal of
            standard deviation 0.02, which positions have, too.
        bias_initializer: initializer of its bias. Defaults to `"zeros"`.
        kernel_regularizer, bias_regularizer: regularizers of the same weights.
        kernel_constraint, bias_constraint: constraints on them.
        **kwargs: base layer arguments, such as `name` and `dtype`.

    Call arguments:
        x: tokens, float tensor of shape `(batch, tokens, channels)`.
        padding_mask: optional boolean tensor of shape `(batch, tokens)`; padding does not count.

    Returns:
        A tensor of shape `(batch, num_groups, channels)`, in the compute dtype.

    Raises:
        ValueError: if the groups do not divide the channels.

    References:
        - [Lu et al., 2022](https://arxiv.org/abs/2210.05958), head tokens (DHVT)
    """

    def __init__(
        self,
        num_groups: int,
        layer_norm_epsilon: float = 1e-05,
        kernel_initializer: Initializer = None,
        bias_initializer: Initializer = "zeros",
        kernel_regularizer: Regularizer = None,
        bias_regularizer: Regularizer = None,
        kernel_constraint: Constraint = None,
        bias_constraint: Constraint = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.num_groups = positive_int("num_groups", num_groups)
        self.layer_norm_epsilon = layer_norm_epsilon
        set_weight_arguments(self, default_stddev=0.02, **locals())

    def build(self, input_shape):
        channels = input_shape[-1]
        if channels % self.num_groups:
            raise InputError(
                "Head tokens are groups of channels, whose number must divide the width of the "
                f"tokens. Received: {self.num_groups} groups, token width {channels}"
            )
        self.projection = keras.layers.Dense(
            channels,
            dtype=self.dtype_policy,
            name="projection",
            **weight_arguments(self, "kernel", "bias"),
        )
        self.projection.build((input_shape[0], self.num_groups, channels // self.num_groups))
        self.norm = keras.layers.LayerNormalization(
            epsilon=self.layer_norm_epsilon, dtype=self.dtype_policy, name="norm"
        )
        size = channels // self.num_groups
        self.norm.build((input_shape[0], self.num_groups, self.num_groups, size))
        self.position = self.add_weight(
            name="position",
            shape=(1, self.num_groups, channels),
            initializer=initial_values(self.kernel_initializer),
        )

    def call(self, x, padding_mask=None):
        wide = ops.cast(x, "float32")  # half precision loses digits in sums over all tokens
        if padding_mask is None:
            mean = ops.mean(wide, axis=1)
        else:
            valid = ops.cast(padding_mask, "float32")[..., None]
            # Zeros, not NaN, for a sample that is padding only.
            mean = ops.sum(wide * valid, axis=1) / ops.maximum(ops.sum(valid, axis=1), 1)
        groups, channels = self.num_groups, x.shape[-1]
        batch = ops.shape(x)[0]
        cut = ops.reshape(ops.cast(mean, self.compute_dtype), (batch, groups, channels // groups))
        projected = ops.reshape(self.projection(cut), (batch, groups, groups, channels // groups))
        activated = ops.gelu(self.norm(projected), approximate=False)
        made = ops.reshape(activated, (batch, groups, channels))
        return made + ops.cast(self.position, made.dtype)

    def compute_output_shape(self, input_shape):
        return (input_shape[0], self.num_groups, input_shape[-1])

    def get_config(self):
        return {
            **super().get_config(),
            "num_groups": self.num_groups,
            "layer_norm_epsilon": self.layer_norm_epsilon,
            **weight_config(self, "kernel", "bias"),
        }
