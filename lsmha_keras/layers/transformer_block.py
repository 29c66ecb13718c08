"""Transformer encoder block with the normalisation of the reference CCT."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import keras
from keras import ops

from lsmha_keras.arguments import plain, positive_int
from lsmha_keras.attention.registry import make_attention
from lsmha_keras.errors import InputError, nearest
from lsmha_keras.layers.attention_core import joint_mask
from lsmha_keras.layers.depthwise_conv import DepthwiseConv
from lsmha_keras.layers.ista import ISTAStep
from lsmha_keras.layers.stochastic_depth import StochasticDepth
from lsmha_keras.layers.weight_arguments import (
    initial_values,
    set_weight_arguments,
    weight_arguments,
    weight_config,
)
from lsmha_keras.types import Constraint, Initializer, Regularizer

_MLPS = ("perceptron", "ista")
_MLP_KERNEL_SIZE = 3


@keras.saving.register_keras_serializable(package="lsmha_keras")
class TransformerBlock(keras.layers.Layer):
    """Large-scale multi-head attention and a two-layer perceptron, both residual.

    As in the reference, the second normalisation acts on the residual stream itself:

    - `x = x + drop_path(attention(LN(x)))`
    - `x = LN(x)`
    - `x = x + drop_path(W2 gelu(W1 x))`, with the exact GELU

    Args:
        num_heads: int, number of attention heads.
        mlp_dim: int, width of the perceptron's hidden layer.
        head_dim: int or `None`, width of one head; `None` means token width // `num_heads`.
            Defaults to `None`.
        dropout_rate: float in [0, 1), dropout after both projections and inside the perceptron.
            Defaults to `0.0`.
        attention_dropout: float in [0, 1), dropout on the attention weights. Defaults to `0.0`.
        stochastic_depth_rate: float in [0, 1), probability to skip a branch for a sample in
            training. Defaults to `0.0`.
        use_qkv_bias: bool, whether queries, keys and values have a bias. Defaults to `False`.
        layer_norm_epsilon: float. Defaults to `1e-5`.
        attention: str, kind of attention; see `list_attention`. Defaults to `"multi_head"`.
        attention_options: dict of the arguments that only this kind has, or `None`.
        grid_shape: `(grid_height, grid_width)` of the tokens, for kinds that need it and for
            `mlp_conv`.
        head_dropout: float in [0, 1), probability to leave out a head for a sample in training; the
            others are scaled up. Defaults to `0.0`.
        mlp: `"perceptron"`, or `"ista"`: the second branch is CRATE's step of sparse coding, whose
            sum with `x` passes a ReLU; `mlp_dim` has no effect then. Defaults to `"perceptron"`.
        mlp_conv: bool, whether the perceptron sees neighbours: `h + gelu(depthwise3x3(h))` takes
            the place of its hidden layer `h`. Defaults to `False`.
        context_broadcast: bool, whether the perceptron's output `y` becomes `(y + mean(y)) / 2`,
            with the mean over the tokens that no mask leaves out. Defaults to `False`.
        kernel_initializer: initializer of the kernels of attention and perceptron. Defaults to a
            truncated normal of standard deviation 0.02.
        bias_initializer: initializer of their biases. Defaults to `"zeros"`.
        kernel_regularizer, bias_regularizer: regularizers of the same weights.
        kernel_constraint, bias_constraint: constraints on them.
        **kwargs: base layer arguments, such as `name`, `dtype` and `activity_regularizer`.

    Call arguments:
        x: tokens, float tensor of shape `(batch, tokens, channels)`.
        training, head_mask, padding_mask, return_head_outputs, return_attention_scores, mask,
            x_mask, head_scale: as in `LargeScaleMultiHeadAttention`.

    Returns:
        The output, of the shape of `x`; with flags set, a tuple of the output, the head outputs
        `(batch, tokens, num_heads, head_dim)` and the attention weights
        `(batch, num_heads, tokens, tokens)`, as asked for.

    Raises:
        ValueError: if an argument is out of range, `num_heads` does not divide the token width
            while `head_dim` is `None`, the kind of attention or an option of it is unknown, there
            is no grid for `mlp_conv`, or tokens that do not fit it, or options of the perceptron
            are set where there is none.

    Example:

    ```python
    block = lsmha_keras.TransformerBlock(num_heads=16, mlp_dim=128)
    block(np.zeros((2, 64, 128), "float32"))  # (2, 64, 128)
    ```

    References:
        - [Hassani et al., 2021](https://arxiv.org/abs/2104.05704)
        - [Sun et al., 2020](https://arxiv.org/abs/2009.09672), heads left out at random
        - [Lu et al., 2022](https://arxiv.org/abs/2210.05958), a convolution in the perceptron
        - [Yu et al., 2023](https://arxiv.org/abs/2306.01129), CRATE
        - [Hyeon-Woo et al., 2022](https://arxiv.org/abs/2210.08457), context broadcasting
    """

    def __init__(
        self,
        num_heads: int,
        mlp_dim: int,
        head_dim: int | None = None,
        dropout_rate: float = 0.0,
        attention_dropout: float = 0.0,
        stochastic_depth_rate: float = 0.0,
        use_qkv_bias: bool = False,
        layer_norm_epsilon: float = 1e-05,
        attention: str = "multi_head",
        attention_options: Mapping[str, Any] | None = None,
        grid_shape: Sequence[int] | None = None,
        head_dropout: float = 0.0,
        mlp: str = "perceptron",
        mlp_conv: bool = False,
        context_broadcast: bool = False,
        kernel_initializer: Initializer = None,
        bias_initializer: Initializer = "zeros",
        kernel_regularizer: Regularizer = None,
        bias_regularizer: Regularizer = None,
        kernel_constraint: Constraint = None,
        bias_constraint: Constraint = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.supports_masking = True
        self.num_heads = plain(num_heads)
        self.mlp_dim = positive_int("mlp_dim", mlp_dim)
        self.head_dim = plain(head_dim)
        self.dropout_rate = plain(dropout_rate)
        self.attention_dropout = plain(attention_dropout)
        self.stochastic_depth_rate = plain(stochastic_depth_rate)
        self.use_qkv_bias = plain(use_qkv_bias)
        self.layer_norm_epsilon = plain(layer_norm_epsilon)
        self.attention_kind = attention
        self.attention_options = None if attention_options is None else dict(attention_options)
        self.grid_shape = plain(grid_shape)
        self.head_dropout = plain(head_dropout)
        self.mlp = mlp
        self.mlp_conv_enabled = plain(mlp_conv)
        self.context_broadcast = plain(context_broadcast)
        if not 0 <= self.head_dropout < 1:
            raise InputError(
                f"`head_dropout` must be in [0, 1). Received: head_dropout={head_dropout}"
            )
        self._check_perceptron()
        if kernel_initializer is None:
            kernel_initializer = keras.initializers.TruncatedNormal(stddev=0.02)
        set_weight_arguments(
            self,
            kernel_initializer=kernel_initializer,
            bias_initializer=bias_initializer,
            kernel_regularizer=kernel_regularizer,
            bias_regularizer=bias_regularizer,
            kernel_constraint=kernel_constraint,
            bias_constraint=bias_constraint,
        )
        self._make_layers(self.dtype_policy)

    def _check_perceptron(self):
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

    def _make_layers(self, dtype):
        self.attention_norm = keras.layers.LayerNormalization(
            epsilon=self.layer_norm_epsilon, dtype=dtype, name="attention_norm"
        )
        self.attention = make_attention(
            self.attention_kind,
            self.num_heads,
            grid_shape=self.grid_shape,
            options=self.attention_options,
            head_dim=self.head_dim,
            dropout=self.attention_dropout,
            use_qkv_bias=self.use_qkv_bias,
            dtype=dtype,
            name="attention",
            **weight_arguments(self, "kernel", "bias"),
        )
        self.mlp_norm = keras.layers.LayerNormalization(
            epsilon=self.layer_norm_epsilon, dtype=dtype, name="mlp_norm"
        )
        if self.mlp == "ista":
            self.ista = ISTAStep(
                self.kernel_regularizer, self.kernel_constraint, dtype=dtype, name="ista"
            )
        else:
            self.mlp_hidden = self._make_dense("mlp_hidden", self.mlp_dim)
        if self.mlp_conv_enabled:
            self.mlp_conv = DepthwiseConv(
                _MLP_KERNEL_SIZE,
                depthwise_initializer=initial_values(keras.initializers.HeNormal()),
                depthwise_regularizer=self.kernel_regularizer,
                depthwise_constraint=self.kernel_constraint,
                dtype=dtype,
                name="mlp_conv",
            )
        if self.head_dropout > 0:
            self.seed_generator = keras.random.SeedGenerator()
        self.dropout = keras.layers.Dropout(self.dropout_rate, dtype=dtype, name="dropout")
        self.drop_path = StochasticDepth(self.stochastic_depth_rate, dtype=dtype, name="drop_path")

    def build(self, input_shape):
        self.attention_norm.build(input_shape)
        self.attention.build(input_shape)
        self.mlp_norm.build(input_shape)
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

    def call(
        self,
        x,
        training=None,
        head_mask=None,
        padding_mask=None,
        return_head_outputs=False,
        return_attention_scores=False,
        mask=None,
        x_mask=None,
        head_scale=None,
    ):
        attended = self.attention(
            self.attention_norm(x),
            training=training,
            head_mask=head_mask,
            padding_mask=padding_mask,
            return_head_outputs=return_head_outputs,
            return_attention_scores=return_attention_scores,
            mask=joint_mask(x, mask=mask, x_mask=x_mask),
            head_scale=self._drop_heads(x, head_scale, training),
        )
        extras = ()
        if return_head_outputs or return_attention_scores:
            attended, *extras = attended
        x = x + self._drop(attended, training)
        x = self.mlp_norm(x)
        if self.mlp == "ista":
            x = ops.relu(x + self._drop(self.ista(x), training))
        else:
            valid = joint_mask(x, padding_mask=padding_mask, mask=mask, x_mask=x_mask)
            x = x + self._drop(self._perceptron(x, valid, training), training)
        return (x, *extras) if extras else x

    def _perceptron(self, x, valid, training):
        hidden = ops.gelu(self.mlp_hidden(x), approximate=False)
        if self.mlp_conv_enabled:
            hidden = hidden + self._convolve(hidden, valid)
        outputs = self.mlp_output(self.dropout(hidden, training=training))
        if self.context_broadcast:
            outputs = (outputs + _mean_token(outputs, valid)) / 2
        return outputs

    def _drop_heads(self, x, head_scale, training):
        """Joins a factor for each head of each sample, 0 for those left out, to what is given."""
        if not training or self.head_dropout == 0:
            return head_scale
        ones = ops.ones((ops.shape(x)[0], self.num_heads), self.compute_dtype)
        kept = keras.random.dropout(ones, self.head_dropout, seed=self.seed_generator)
        return kept if head_scale is None else kept * ops.cast(head_scale, self.compute_dtype)

    def _convolve(self, hidden, valid):
        shape = ops.shape(hidden)
        if valid is not None:
            # Padding is what lies beyond the border.
            hidden = hidden * ops.cast(valid, hidden.dtype)[..., None]
        grid = ops.reshape(hidden, (shape[0], *self.grid_shape, shape[-1]))
        return ops.reshape(ops.gelu(self.mlp_conv(grid), approximate=False), shape)

    def _drop(self, branch, training):
        return self.drop_path(self.dropout(branch, training=training), training=training)

    def compute_output_shape(self, input_shape):
        return tuple(input_shape)

    def compute_output_spec(self, x, **kwargs):
        return self.attention.compute_output_spec(x, **kwargs)

    def get_config(self):
        return {
            **super().get_config(),
            "num_heads": self.num_heads,
            "mlp_dim": self.mlp_dim,
            "head_dim": self.head_dim,
            "dropout_rate": self.dropout_rate,
            "attention_dropout": self.attention_dropout,
            "stochastic_depth_rate": self.stochastic_depth_rate,
            "use_qkv_bias": self.use_qkv_bias,
            "layer_norm_epsilon": self.layer_norm_epsilon,
            "attention": self.attention_kind,
            "attention_options": self.attention_options,
            "grid_shape": self.grid_shape,
            "head_dropout": self.head_dropout,
            "mlp": self.mlp,
            "mlp_conv": self.mlp_conv_enabled,
            "context_broadcast": self.context_broadcast,
            **weight_config(self, "kernel", "bias"),
        }


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
