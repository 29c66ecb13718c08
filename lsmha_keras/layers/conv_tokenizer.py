"""Turns an image into a sequence of tokens with convolutions."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras
from keras import ops

from lsmha_keras.arguments import check_channels_last, plain, positive_int
from lsmha_keras.errors import InputError
from lsmha_keras.layers.conv import Conv2D, max_pool_relu
from lsmha_keras.layers.conv_norm import ConvNorm
from lsmha_keras.layers.weight_arguments import (
    set_weight_arguments,
    weight_arguments,
    weight_config,
)
from lsmha_keras.types import Constraint, Initializer, Regularizer

DESIGNS = ("plain", "separable", "inverted_bottleneck")


@keras.saving.register_keras_serializable(package="lsmha_keras")
class ConvTokenizer(keras.layers.Layer):
    """Convolutional tokenizer of the compact convolutional transformer.

    `num_layers` stages, each followed by ReLU and 3x3 max pooling with stride 2. The last stage has
    `hidden_dim` filters, the others `num_filters`. A stage is, by `design`:

    - `"plain"`, the reference: one convolution without bias, of stride
      `max(1, kernel_size // 2 - 1)` and padding `max(1, kernel_size // 2)`;
    - `"separable"`: a depthwise and a 1 x 1 convolution;
    - `"inverted_bottleneck"`: a 1 x 1 convolution to twice the channels, ReLU, a depthwise
      convolution, ReLU, and a 1 x 1 convolution to the stage's filters.

    The last two save multiply-adds where there are two stages and more: the first stage, which sees
    the image's few channels, is one convolution in every design. Each of their convolutions is
    followed by batch normalisation, which `fused=True` folds into it for inference.

    Args:
        hidden_dim: int, width of a token.
        num_layers: int, number of convolutions. Defaults to `1`.
        kernel_size: int, side of the convolution kernels. Defaults to `3`.
        num_filters: int, filters of all convolutions but the last. Defaults to `64`.
        design: str, see above. Defaults to `"plain"`.
        fused: bool, whether batch normalisation is folded in; see `fused_weights`. Defaults to
            `False`.
        kernel_initializer: initializer of the kernels. Defaults to `"he_normal"`.
        kernel_regularizer: regularizer of the kernels.
        kernel_constraint: constraint on the kernels.
        **kwargs: base layer arguments, such as `name`, `dtype` and `activity_regularizer`.

    Call arguments:
        images: float tensor of shape `(batch, height, width, channels)`, channels last on every
            backend.

    Returns:
        Tokens of shape `(batch, grid_height * grid_width, hidden_dim)`, row by row. For 32x32
        images and 3x3 kernels, one layer gives 256 tokens and two give 64.

    Raises:
        ValueError: if an argument is out of range, the kernel size has a stride that `design` does
            not support, the input is not of rank 4, or the image is too small for one token.

    Example:

    ```python
    tokens = lsmha_keras.ConvTokenizer(hidden_dim=128, num_layers=2)(
        np.zeros((1, 32, 32, 3), "float32")
    )  # (1, 64, 128)
    ```

    References:
        - [Hassani et al., 2021](https://arxiv.org/abs/2104.05704), section 3.3
        - [Sandler et al., 2018](https://arxiv.org/abs/1801.04381), inverted bottleneck
    """

    def __init__(
        self,
        hidden_dim: int,
        num_layers: int = 1,
        kernel_size: int = 3,
        num_filters: int = 64,
        design: str = "plain",
        fused: bool = False,
        kernel_initializer: Initializer = "he_normal",
        kernel_regularizer: Regularizer = None,
        kernel_constraint: Constraint = None,
        **kwargs: Any,
    ) -> None:
        check_channels_last(kwargs.pop("data_format", None))
        super().__init__(**kwargs)
        if design not in DESIGNS:
            raise InputError(f"`design` must be one of {DESIGNS}. Received: design={design!r}")
        self.hidden_dim = positive_int("hidden_dim", hidden_dim)
        self.num_layers = positive_int("num_layers", num_layers)
        self.kernel_size = positive_int("kernel_size", kernel_size)
        self.num_filters = positive_int("num_filters", num_filters)
        self.design = design
        self.fused = plain(fused)
        set_weight_arguments(self, **locals())
        self._stride = max(1, self.kernel_size // 2 - 1)
        self._padding = max(1, self.kernel_size // 2)
        # "same" pads like the reference only at stride 1; at other strides it pads unevenly.
        self._pad_explicitly = self._stride > 1 or self.kernel_size != 2 * self._padding + 1
        if design != "plain" and self._pad_explicitly:
            raise InputError(
                f"The {design!r} tokenizer has kernels of size 3 or 5, which have stride 1. "
                f"Received: kernel_size={kernel_size}"
            )
        self._make_layers()

    def _make_layers(self):
        self.conv_padding = keras.layers.ZeroPadding2D(
            self._padding,
            data_format="channels_last",
            dtype=self.dtype_policy,
            name="conv_padding",
        )
        # Every convolution in order, and whether its stage ends with it.
        self.convs, self._ends_stage = [], []
        channels = None  # of the images, which are known in `build`
        for i in range(self.num_layers):
            filters = self.hidden_dim if i == self.num_layers - 1 else self.num_filters
            stage = self._make_stage(i, channels, filters)
            self.convs += stage
            self._ends_stage += [conv is stage[-1] for conv in stage]
            channels = filters

    def _make_stage(self, index, channels, filters):
        """Makes the convolutions of a stage, from `channels` (the image's: `None`) to `filters`."""
        name = f"conv_{index}"
        if self.design == "plain":
            plain = Conv2D(
                filters,
                self.kernel_size,
                strides=self._stride,
                padding="valid" if self._pad_explicitly else "same",
                use_bias=False,
                dtype=self.dtype_policy,
                name=name,
                **weight_arguments(self, "kernel"),
            )
            return [plain]
        if channels is None:
            sizes = [(filters, self.kernel_size)]
        elif self.design == "separable":
            sizes = [(None, self.kernel_size), (filters, 1)]
        else:
            sizes = [(2 * channels, 1), (None, self.kernel_size), (filters, 1)]
        return [
            ConvNorm(
                width,
                size,
                fused=self.fused,
                dtype=self.dtype_policy,
                name=f"{name}_{part}",
                **weight_arguments(self, "kernel"),
            )
            for part, (width, size) in enumerate(sizes)
        ]

    def build(self, input_shape):
        self.grid_shape(input_shape)
        for conv in self.convs:
            conv.build(input_shape)
            if conv.filters is not None:  # a depthwise convolution keeps the channels
                input_shape = (*input_shape[:-1], conv.filters)
        self.conv_padding.build(input_shape)

    def grid_shape(self, input_shape: Sequence[int | None]) -> tuple[Any, ...]:
        """Returns `(grid_height, grid_width)` for images `(batch, height, width, channels)`."""
        if len(input_shape) != 4:
            raise InputError(
                "`ConvTokenizer` expects images of shape (batch, height, width, channels). "
                f"Received: input_shape={input_shape}"
            )
        sides = []
        for side in input_shape[1:3]:
            for _ in range(self.num_layers):
                if side is None:
                    break
                side = (side + 2 * self._padding - self.kernel_size) // self._stride + 1
                side = (side - 1) // 2 + 1
            sides.append(side)
        if any(side is not None and side < 1 for side in sides):
            raise InputError(
                f"`ConvTokenizer` with {self.num_layers} layers leaves no token of images this "
                f"small. Received: input_shape={input_shape}"
            )
        return tuple(sides)

    def call(self, images, training=None):
        x = images
        for conv, ends_stage in zip(self.convs, self._ends_stage, strict=True):
            if self.design == "plain":
                x = conv(self.conv_padding(x) if self._pad_explicitly else x)
            else:
                x = conv(x, training=training)
            if ends_stage:
                x = max_pool_relu(x)
            elif self.design != "separable":
                x = ops.relu(x)
        # Not -1 for a size that is known: of an empty batch it cannot be found out.
        tokens = -1 if None in x.shape[1:3] else x.shape[1] * x.shape[2]
        return ops.reshape(x, (ops.shape(x)[0], tokens, self.hidden_dim))

    def fused_weights(self) -> list[Any]:
        """Returns the weights that make this layer with `fused=True` give the same at inference.

        Returns:
            A list of arrays, for `set_weights`.
        """
        if self.design == "plain":
            return self.get_weights()
        return [weight for conv in self.convs for weight in conv.fused_weights()]

    def compute_output_shape(self, input_shape):
        height, width = self.grid_shape(input_shape)
        tokens = None if None in (height, width) else height * width
        return (input_shape[0], tokens, self.hidden_dim)

    def get_config(self):
        return {
            **super().get_config(),
            "hidden_dim": self.hidden_dim,
            "num_layers": self.num_layers,
            "kernel_size": self.kernel_size,
            "num_filters": self.num_filters,
            "design": self.design,
            "fused": self.fused,
            **weight_config(self, "kernel"),
        }
