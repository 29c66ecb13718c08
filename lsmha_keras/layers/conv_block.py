"""A convolutional block that replaces an early transformer block."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras
from keras import ops

from lsmha_keras.arguments import grid, plain, positive_int
from lsmha_keras.errors import InputError
from lsmha_keras.layers.attention_core import joint_mask
from lsmha_keras.layers.conv_norm import ConvNorm
from lsmha_keras.layers.stochastic_depth import StochasticDepth
from lsmha_keras.layers.weight_arguments import (
    set_weight_arguments,
    weight_arguments,
    weight_config,
)
from lsmha_keras.types import Constraint, Initializer, Regularizer

# Hidden channels of the inverted bottleneck, in multiples of the token width.
_EXPANSION = 2


def _full(channels, kernel_size):
    return [(channels, kernel_size, False, True)]


def _separable(channels, kernel_size):
    return [(None, kernel_size, False, False), (channels, 1, False, True)]


def _inverted_bottleneck(channels, kernel_size):
    return [
        (_EXPANSION * channels, 1, False, True),
        (None, kernel_size, False, True),
        (channels, 1, False, False),
    ]


def _reparameterized(channels, kernel_size):
    return [(channels, kernel_size, True, True)]


# Name -> the convolutions of the branch: filters, kernel size, parallel branches, GELU after it.
_DESIGNS = {
    "full": _full,
    "separable": _separable,
    "inverted_bottleneck": _inverted_bottleneck,
    "reparameterized": _reparameterized,
}
DESIGNS = tuple(_DESIGNS)


@keras.saving.register_keras_serializable(package="lsmha_keras")
class ConvBlock(keras.layers.Layer):
    """Residual convolutions on the token grid, a drop-in for a `TransformerBlock`.

    `x = x + drop_path(branch(x))`. Tokens come in and go out as a sequence, so the weights of the
    blocks after it stay usable. The branch is one of four designs, each convolution followed by
    batch normalisation:

    - `"full"`: one `kernel_size` x `kernel_size` convolution, GELU;
    - `"separable"`: a depthwise and a 1 x 1 convolution, GELU;
    - `"inverted_bottleneck"`: 1 x 1 to twice the width, GELU, depthwise, GELU, 1 x 1 back;
    - `"reparameterized"`: as `"full"`, with a 1 x 1 convolution and the identity trained beside the
      convolution, GELU of the sum.

    For inference, `fused=True` is the same block with the normalisations and parallel branches
    folded into the convolutions; see `fused_weights`.

    On a grid of one column, the tokens of a sequence, the convolutions are one-dimensional.

    Args:
        grid_shape: pair of ints, `(grid_height, grid_width)` of the tokens.
        design: str, see above. Defaults to `"separable"`, by far the fastest of the four; after a
            short equal training all four are more accurate than a transformer block in their place
            (`zoo/EVIDENCE.md`).
        kernel_size: int, side of the kernels that are not 1 x 1. Defaults to `3`.
        fused: bool, see above. Defaults to `False`.
        stochastic_depth_rate: float in [0, 1), probability to skip the branch for a sample in
            training. Defaults to `0.0`.
        kernel_initializer: initializer of the kernels. Defaults to `"he_normal"`.
        kernel_regularizer: regularizer of the kernels.
        kernel_constraint: constraint on the kernels.
        **kwargs: base layer arguments, such as `name`, `dtype` and `activity_regularizer`.

    Call arguments:
        x: tokens, float tensor of shape `(batch, grid_height * grid_width, channels)`.
        training: bool or `None`.
        padding_mask: optional boolean tensor of shape `(batch, tokens)`, `False` for tokens that no
            other token may see, and that do not count in the statistics of a training batch.

    Returns:
        A tensor of the shape of `x`, in the compute dtype.

    Raises:
        ValueError: if an argument is out of range or the number of tokens does not fit the grid.

    Example:

    ```python
    lsmha_keras.ConvBlock(grid_shape=(8, 8))(np.zeros((2, 64, 128), "float32"))
    ```

    References:
        - [Gross et al., 2025](https://arxiv.org/abs/2506.23832), convolutions for initial blocks
        - [Sandler et al., 2018](https://arxiv.org/abs/1801.04381), inverted bottleneck
        - [Ding et al., 2021](https://arxiv.org/abs/2101.03697), branches that fold into one
    """

    def __init__(
        self,
        grid_shape: Sequence[int],
        design: str = "separable",
        kernel_size: int = 3,
        fused: bool = False,
        stochastic_depth_rate: float = 0.0,
        kernel_initializer: Initializer = "he_normal",
        kernel_regularizer: Regularizer = None,
        kernel_constraint: Constraint = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        if design not in _DESIGNS:
            raise InputError(f"`design` must be one of {DESIGNS}. Received: design={design!r}")
        self.grid_shape = grid(grid_shape)
        self.design = design
        self.kernel_size = positive_int("kernel_size", kernel_size)
        self.fused = plain(fused)
        self.stochastic_depth_rate = plain(stochastic_depth_rate)
        set_weight_arguments(self, **locals())
        self.drop_path = StochasticDepth(
            self.stochastic_depth_rate, dtype=self.dtype_policy, name="drop_path"
        )

    def build(self, input_shape):
        num_tokens = self.grid_shape[0] * self.grid_shape[1]
        if len(input_shape) != 3 or input_shape[1] != num_tokens:
            raise InputError(
                f"`ConvBlock` of grid {self.grid_shape} expects tokens of shape (batch, "
                f"{num_tokens}, channels). Received: input_shape={input_shape}"
            )
        shape = (input_shape[0], *self.grid_shape, input_shape[-1])
        self.convs, self._activated = [], []
        for i, (filters, kernel_size, parallel, activated) in enumerate(
            _DESIGNS[self.design](input_shape[-1], self.kernel_size)
        ):
            conv = ConvNorm(
                filters,
                (kernel_size, 1) if self.grid_shape[1] == 1 else kernel_size,
                parallel=parallel,
                fused=self.fused,
                dtype=self.dtype_policy,
                name=f"conv_{i}",
                **weight_arguments(self, "kernel"),
            )
            conv.build(shape)
            shape = conv.compute_output_shape(shape)
            self.convs.append(conv)
            self._activated.append(activated)

    def call(self, x, training=None, padding_mask=None):
        shape = ops.shape(x)
        if padding_mask is not None:
            padding_mask = joint_mask(x, padding_mask=padding_mask)
            padding_mask = ops.reshape(padding_mask, (shape[0], *self.grid_shape))
        branch = ops.reshape(x, (shape[0], *self.grid_shape, shape[-1]))
        for conv, activated in zip(self.convs, self._activated, strict=True):
            branch = conv(branch, training=training, padding_mask=padding_mask)
            branch = ops.gelu(branch, approximate=False) if activated else branch
        return x + self.drop_path(ops.reshape(branch, shape), training=training)

    def fused_weights(self) -> list[Any]:
        """Returns the weights that make this block with `fused=True` give the same at inference.

        Returns:
            A list of arrays, for `set_weights`.
        """
        return [weight for conv in self.convs for weight in conv.fused_weights()]

    def compute_output_shape(self, input_shape):
        return tuple(input_shape)

    def get_config(self):
        return {
            **super().get_config(),
            "grid_shape": self.grid_shape,
            "design": self.design,
            "kernel_size": self.kernel_size,
            "fused": self.fused,
            "stochastic_depth_rate": self.stochastic_depth_rate,
            **weight_config(self, "kernel"),
        }
