"""The second branch of a transformer block: a perceptron, or a step of sparse coding."""

from __future__ import annotations

from typing import Any

import keras
from keras import ops

from lsmha_keras.errors import InputError, nearest
from lsmha_keras.layers.depthwise_conv import DepthwiseConv
from lsmha_keras.layers.ista import ISTAStep
from lsmha_keras.layers.stochastic_depth import StochasticDepth
from lsmha_keras.layers.weight_arguments import initial_values, weight_arguments

_MLPS = ("perceptron", "ista")
_KERNEL_SIZE = 3


class SecondBranch:
    """What `TransformerBlock` does after attention.

    The layers are attributes of the block itself, so saved weights lie where they always did.
    """

    # Of the block.
    mlp: str
    mlp_dim: int
    mlp_conv_enabled: bool
    context_broadcast: bool
    grid_shape: Any
    token_keep: float
    dropout_rate: float
    stochastic_depth_rate: float
    kernel_regularizer: Any
    kernel_constraint: Any
    dtype_policy: Any

    def check_second_branch(self) -> None:
        """Refuses options that do not go together."""
        options = {
            "mlp_conv": self.mlp_conv_enabled,
            "context_broadcast": self.context_broadcast,
        }
        if self.mlp not in _MLPS or (self.mlp == "ista" and any(options.values())):
            raise InputError(
                f"`mlp` must be one of {', '.join(_MLPS)}{nearest(self.mlp, _MLPS)}; `mlp_conv` "
                "and `context_broadcast` are options of the perceptron. Received: "
                f"mlp={self.mlp!r}, {', '.join(f'{k}={v}' for k, v in options.items())}"
            )
        if self.mlp_conv_enabled and self.grid_shape is None:
            raise InputError("`mlp_conv` needs the grid of the tokens. Received: grid_shape=None")
        if self.mlp_conv_enabled and self.token_keep < 1:
            raise InputError(
                "`mlp_conv` needs all tokens of the grid. "
                f"Received: mlp_conv=True, token_keep={self.token_keep}"
            )

    def make_second_branch(self) -> None:
        """Makes the layers whose width does not depend on the tokens."""
        dtype = self.dtype_policy
        if self.mlp == "ista":
            self.ista = ISTAStep(
                self.kernel_regularizer, self.kernel_constraint, dtype=dtype, name="ista"
            )
        else:
            self.mlp_hidden = self._make_dense("mlp_hidden", self.mlp_dim)
        if self.mlp_conv_enabled:
            self.mlp_conv = DepthwiseConv(
                _KERNEL_SIZE,
                depthwise_initializer=initial_values(keras.initializers.HeNormal()),
                depthwise_regularizer=self.kernel_regularizer,
                depthwise_constraint=self.kernel_constraint,
                dtype=dtype,
                name="mlp_conv",
            )
        self.dropout = keras.layers.Dropout(self.dropout_rate, dtype=dtype, name="dropout")
        self.drop_path = StochasticDepth(self.stochastic_depth_rate, dtype=dtype, name="drop_path")

    def build_second_branch(self, input_shape: Any) -> None:
        """Builds the layers for tokens of shape `(batch, tokens, channels)`."""
        if self.mlp == "ista":
            self.ista.build(input_shape)
            return
        self.mlp_hidden.build(input_shape)
        if self.mlp_conv_enabled:
            height, width = self.grid_shape
            if input_shape[1] != height * width:
                raise InputError(
                    f"`mlp_conv` on a grid {self.grid_shape} expects {height * width} tokens. "
                    f"Received: input_shape={tuple(input_shape)}"
                )
            self.mlp_conv.build((input_shape[0], height, width, self.mlp_dim))
        self.mlp_output = self._make_dense("mlp_output", input_shape[-1])
        self.mlp_output.build((*input_shape[:-1], self.mlp_dim))

    def _make_dense(self, name, units):
        arguments = weight_arguments(self, "kernel", "bias")
        return keras.layers.Dense(units, dtype=self.dtype_policy, name=name, **arguments)

    def add_second_branch(self, x: Any, valid: Any, training: bool | None) -> Any:
        """Adds the branch to tokens; `valid` is their mask `(batch, tokens)` or `None`."""
        if self.mlp == "ista":
            return ops.relu(x + self.drop(self.ista(x), training))
        return x + self.drop(self._perceptron(x, valid, training), training)

    def _perceptron(self, x, valid, training):
        hidden = ops.gelu(self.mlp_hidden(x), approximate=False)
        if self.mlp_conv_enabled:
            hidden = hidden + self._convolve(hidden, valid)
        outputs = self.mlp_output(self.dropout(hidden, training=training))
        if self.context_broadcast:
            outputs = (outputs + _mean_token(outputs, valid)) / 2
        return outputs

    def _convolve(self, hidden, valid):
        shape = ops.shape(hidden)
        if valid is not None:
            # Padding is what lies beyond the border.
            hidden = hidden * ops.cast(valid, hidden.dtype)[..., None]
        grid = ops.reshape(hidden, (shape[0], *self.grid_shape, shape[-1]))
        return ops.reshape(ops.gelu(self.mlp_conv(grid), approximate=False), shape)

    def drop(self, branch: Any, training: bool | None) -> Any:
        """Applies dropout and stochastic depth to a branch."""
        return self.drop_path(self.dropout(branch, training=training), training=training)


def _mean_token(tokens, valid):
    """Returns the mean token of each sample, `(batch, 1, channels)`, in the dtype of `tokens`."""
    wide = ops.cast(tokens, "float32")
    if valid is None:
        mean = ops.mean(wide, axis=1, keepdims=True)
    else:
        weights = ops.cast(valid, "float32")[..., None]
        count = ops.maximum(ops.sum(weights, axis=1, keepdims=True), 1)
        mean = ops.sum(wide * weights, axis=1, keepdims=True) / count
    return ops.cast(mean, tokens.dtype)
