"""The base of blocks that mix tokens on their grid before a perceptron."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras
from keras import ops

from lsmha_keras.arguments import grid, plain, positive_int
from lsmha_keras.errors import InputError
from lsmha_keras.layers.stochastic_depth import StochasticDepth
from lsmha_keras.layers.weight_arguments import (
    set_weight_arguments,
    weight_arguments,
    weight_config,
)
from lsmha_keras.types import Constraint, Initializer, Regularizer


class MixerBlock(keras.layers.Layer):
    """Base of blocks that consist of a mixer of tokens and a two-layer perceptron.

    A block overrides `make_mixer` and `call`.

    Args:
        grid_shape: pair of ints, `(grid_height, grid_width)` of the tokens.
        mlp_dim: int, width of the perceptron's hidden layer.
        dropout_rate: float in [0, 1), dropout after the perceptron's layers. Defaults to `0.0`.
        stochastic_depth_rate: float in [0, 1), probability to skip a branch for a sample in
            training. Defaults to `0.0`.
        layer_norm_epsilon: float. Defaults to `1e-5`.
        kernel_initializer: initializer of the kernels of dense layers. Defaults to a truncated
            normal of standard deviation 0.02.
        bias_initializer: initializer of their biases. Defaults to `"zeros"`.
        kernel_regularizer, bias_regularizer: regularizers of the same weights.
        kernel_constraint, bias_constraint: constraints on them.
        **kwargs: base layer arguments, such as `name`, `dtype` and `activity_regularizer`.
    """

    def __init__(
        self,
        grid_shape: Sequence[int],
        mlp_dim: int,
        dropout_rate: float = 0.0,
        stochastic_depth_rate: float = 0.0,
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
        self.grid_shape = grid(grid_shape)
        self.mlp_dim = positive_int("mlp_dim", mlp_dim)
        self.dropout_rate = plain(dropout_rate)
        self.stochastic_depth_rate = plain(stochastic_depth_rate)
        self.layer_norm_epsilon = plain(layer_norm_epsilon)
        set_weight_arguments(self, default_stddev=0.02, **locals())

    def build(self, input_shape):
        num_tokens = self.grid_shape[0] * self.grid_shape[1]
        if len(input_shape) != 3 or input_shape[1] != num_tokens:
            raise InputError(
                f"`{type(self).__name__}` of grid {self.grid_shape} expects tokens of shape "
                f"(batch, {num_tokens}, channels). Received: input_shape={input_shape}"
            )
        dtype = self.dtype_policy
        epsilon = self.layer_norm_epsilon
        self.mixer_norm = keras.layers.LayerNormalization(
            epsilon=epsilon, dtype=dtype, name="mixer_norm"
        )
        self.mixer = self.make_mixer()
        self.mlp_norm = keras.layers.LayerNormalization(
            epsilon=epsilon, dtype=dtype, name="mlp_norm"
        )
        self.mlp_hidden = self.make_dense("mlp_hidden", self.mlp_dim)
        self.mlp_output = self.make_dense("mlp_output", input_shape[-1])
        for layer in (self.mixer_norm, self.mixer, self.mlp_norm, self.mlp_hidden):
            layer.build(input_shape)
        self.mlp_output.build((*input_shape[:-1], self.mlp_dim))
        self.dropout = keras.layers.Dropout(self.dropout_rate, dtype=dtype, name="dropout")
        self.drop_path = StochasticDepth(self.stochastic_depth_rate, dtype=dtype, name="drop_path")

    def make_mixer(self) -> Any:
        """Makes the layer, not built yet, that mixes tokens `(batch, tokens, channels)`."""
        raise NotImplementedError

    def make_dense(self, name: str, units: int) -> Any:
        """Makes a `keras.layers.Dense`, not built yet, with this layer's arguments of weights."""
        arguments = weight_arguments(self, "kernel", "bias")
        return keras.layers.Dense(units, dtype=self.dtype_policy, name=name, **arguments)

    def mlp(self, x: Any, training: bool | None) -> Any:
        """Computes `W2 gelu(W1 x)`, with the exact GELU."""
        # Keras's default is the approximation; the transformer block and PyTorch take this one.
        hidden = ops.gelu(self.mlp_hidden(x), approximate=False)
        return self.mlp_output(self.dropout(hidden, training=training))

    def drop(self, branch: Any, training: bool | None) -> Any:
        """Applies dropout and stochastic depth to a branch."""
        return self.drop_path(self.dropout(branch, training=training), training=training)

    def compute_output_shape(self, input_shape):
        return tuple(input_shape)

    def get_config(self):
        return {
            **super().get_config(),
            "grid_shape": self.grid_shape,
            "mlp_dim": self.mlp_dim,
            "dropout_rate": self.dropout_rate,
            "stochastic_depth_rate": self.stochastic_depth_rate,
            "layer_norm_epsilon": self.layer_norm_epsilon,
            **weight_config(self, "kernel", "bias"),
        }
