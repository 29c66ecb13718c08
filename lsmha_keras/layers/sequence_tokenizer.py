"""Turns a sequence of word embeddings or measurements into tokens with 1-D convolutions."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
from keras import ops

from lsmha_keras.arguments import positive_int, whole_number
from lsmha_keras.errors import InputError
from lsmha_keras.layers.attention_core import joint_mask
from lsmha_keras.layers.weight_arguments import (
    set_weight_arguments,
    weight_arguments,
    weight_config,
)
from lsmha_keras.types import Constraint, Initializer, Regularizer

# Of the max pooling in the reference's text models: size and stride, and zeros at both ends.
_POOL, _POOL_PADDING = 2, 1


@keras.saving.register_keras_serializable(package="lsmha_keras")
class SequenceTokenizer(keras.layers.Layer):
    """Convolutional tokenizer of text CCT, for sequences with padding at their end.

    `num_layers` stages, each a convolution without bias, ReLU, and max pooling of size and stride
    2. The last convolution has `hidden_dim` filters, the others `num_filters`. Its stride is
    `max(1, kernel_size // 2 - 1)` and its padding `max(1, kernel_size // 2)`.

    A sequence gives the same tokens however much padding follows it: padding enters every
    convolution as zeros, and `token_mask` keeps as many tokens as the sequence has without padding.
    The reference keeps those that see any of it, one more for some lengths with kernels of 4.

    Args:
        hidden_dim: int, width of a token.
        num_layers: int, number of stages; 0 passes sequences of width `hidden_dim` on, as text CVT
            does. Defaults to `1`.
        kernel_size: int, length of the kernels; the reference has 2 and 4. Defaults to `4`.
        num_filters: int, filters of all convolutions but the last. Defaults to `64`.
        kernel_initializer: initializer of the kernels. Defaults to `"he_normal"`.
        kernel_regularizer: regularizer of the kernels.
        kernel_constraint: constraint on the kernels.
        **kwargs: base layer arguments, such as `name` and `dtype`.

    Call arguments:
        x: float tensor of shape `(batch, time, features)`.
        padding_mask: optional boolean tensor `(batch, time)`, `False` for padding, which comes
            after everything else.
        mask, x_mask: the same, filled in by Keras with the mask of `x`.

    Returns:
        Tokens of shape `(batch, tokens, hidden_dim)`. One stage of kernel size 4 makes 33 tokens
        of 64 words.

    Raises:
        ValueError: if an argument is out of range, the input is not of rank 3 or too short for one
            token, a mask does not fit it, or its width is not `hidden_dim` without a stage.

    Example:

    ```python
    layer = lsmha_keras.SequenceTokenizer(hidden_dim=128)
    tokens = layer(np.zeros((2, 64, 300), "float32"))  # (2, 33, 128)
    ```

    References:
        - [Hassani et al., 2021](https://arxiv.org/abs/2104.05704), appendix on text
    """

    def __init__(
        self,
        hidden_dim: int,
        num_layers: int = 1,
        kernel_size: int = 4,
        num_filters: int = 64,
        kernel_initializer: Initializer = "he_normal",
        kernel_regularizer: Regularizer = None,
        kernel_constraint: Constraint = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.hidden_dim = positive_int("hidden_dim", hidden_dim)
        self.num_layers = whole_number("num_layers", num_layers, 0)
        self.kernel_size = positive_int("kernel_size", kernel_size)
        self.num_filters = positive_int("num_filters", num_filters)
        set_weight_arguments(
            self,
            kernel_initializer=kernel_initializer,
            kernel_regularizer=kernel_regularizer,
            kernel_constraint=kernel_constraint,
        )
        self._stride = max(1, self.kernel_size // 2 - 1)
        self._padding = max(1, self.kernel_size // 2)
        widths = [self.num_filters] * (self.num_layers - 1) + [self.hidden_dim]
        self.convs = [
            keras.layers.Conv1D(
                filters,
                self.kernel_size,
                strides=self._stride,
                use_bias=False,
                data_format="channels_last",
                dtype=self.dtype_policy,
                name=f"conv_{i}",
                **weight_arguments(self, "kernel"),
            )
            for i, filters in enumerate(widths[: self.num_layers])
        ]
        self.pool = keras.layers.MaxPooling1D(
            _POOL, data_format="channels_last", dtype=self.dtype_policy, name="pool"
        )

    def build(self, input_shape):
        self.num_tokens(input_shape)
        if not self.convs and input_shape[-1] != self.hidden_dim:
            raise InputError(
                "Without a convolution the sequence must be as wide as the tokens. Received: "
                f"num_layers=0, hidden_dim={self.hidden_dim}, input_shape={tuple(input_shape)}"
            )
        for conv in self.convs:
            # Without the time: what is convolved is longer, as padding is added at both ends.
            conv.build((input_shape[0], None, input_shape[-1]))
            input_shape = (*input_shape[:-1], conv.filters)
        self.pool.build(input_shape)

    def num_tokens(self, input_shape: Sequence[int | None]) -> Any:
        """Returns how many tokens a sequence `(batch, time, features)` gives, an int."""
        if len(input_shape) != 3 or input_shape[1] is None:
            raise InputError(
                "`SequenceTokenizer` expects sequences of shape (batch, time, features) with a "
                f"known time. Received: input_shape={tuple(input_shape)}"
            )
        count = input_shape[1]
        for _ in self.convs:
            count = self._convolved(count) // _POOL + 1
        if count < 1 or (self.convs and self._convolved(input_shape[1]) < 1):
            raise InputError(
                "The sequence is too short for one token. Received: "
                f"kernel_size={self.kernel_size}, input_shape={tuple(input_shape)}"
            )
        return count

    @property
    def stride(self) -> int:
        """How many time steps lie between two tokens."""
        return (self._stride * _POOL) ** len(self.convs)

    def token_sources(self, padding_mask: Any) -> np.ndarray:
        """Finds which time steps make up each token.

        Args:
            padding_mask: boolean array `(time,)`, `False` for padding.

        Returns:
            A float64 array `(tokens, time)`: the share of the ways from each time step to the token
            through kernels and pooling. Rows sum to 1; those of padding are 0.
        """
        ways = np.diag(np.asarray(padding_mask, "float64"))  # (places, time)
        last = length = np.flatnonzero(padding_mask).max(initial=-1) + 1
        for _ in self.convs:
            ways = _join_ways(ways, self.kernel_size, self._stride, self._padding)
            length = self._convolved(length)
            ways[length:] = 0  # as in `call`, where they would be of no shorter sequence
            ways = _join_ways(ways, _POOL, _POOL, _POOL_PADDING)
            length = length // _POOL + 1
        # Kernels of length 1 see nothing at the ends: the nearest time step stands in.
        for token in np.flatnonzero(ways.sum(axis=1) == 0):
            ways[token, min(token * self.stride, max(last - 1, 0))] = 1.0
        ways[length:] = 0
        return ways / np.maximum(ways.sum(axis=1, keepdims=True), 1)

    def _convolved(self, length):
        """Length after a convolution, of an int or a tensor."""
        return (length + 2 * self._padding - self.kernel_size) // self._stride + 1

    def call(self, x, padding_mask=None, mask=None, x_mask=None):
        valid = joint_mask(x, padding_mask=padding_mask, mask=mask, x_mask=x_mask)
        length = None if valid is None else _lengths(valid)
        for conv in self.convs:
            x = _without_padding(x, length)
            x = conv(_pad(x, self._padding))
            # Zeros are what ReLU gives at least, so they pad the pooling harmlessly.
            x = ops.relu(x)
            if length is not None:
                length = self._convolved(length)
                x = _without_padding(x, length)
                length = length // _POOL + 1
            x = self.pool(_pad(x, _POOL_PADDING))
        return _without_padding(x, length)

    def token_mask(self, padding_mask: Any) -> Any:
        """Computes which tokens are no padding.

        Args:
            padding_mask: boolean tensor `(batch, time)`, `False` for padding.

        Returns:
            A boolean tensor `(batch, tokens)`.
        """
        count = self.num_tokens((*padding_mask.shape, None))
        length = _lengths(padding_mask)
        for _ in self.convs:
            length = self._convolved(length) // _POOL + 1
        return ops.less(ops.arange(count, dtype="int32"), length[:, None])

    def compute_mask(self, x, previous_mask=None):
        """Returns the mask of the tokens: see `token_mask`."""
        return None if previous_mask is None else self.token_mask(previous_mask)

    def compute_output_shape(self, input_shape):
        return (input_shape[0], self.num_tokens(input_shape), self.hidden_dim)

    def get_config(self):
        return {
            **super().get_config(),
            "hidden_dim": self.hidden_dim,
            "num_layers": self.num_layers,
            "kernel_size": self.kernel_size,
            "num_filters": self.num_filters,
            **weight_config(self, "kernel"),
        }


def _join_ways(ways, size, stride, padding):
    """Adds up the ways to `size` neighbours, `(places, time)`, as a kernel or pooling does."""
    ways = np.pad(ways, ((padding, padding), (0, 0)))
    starts = range(0, len(ways) - size + 1, stride)
    return np.stack([ways[start : start + size].sum(axis=0) for start in starts])


def _lengths(mask):
    """Returns the length of each sequence up to its last valid place, int32 `(batch,)`."""
    places = ops.arange(1, mask.shape[1] + 1, dtype="int32")
    return ops.max(ops.where(mask, places, 0), axis=1)


def _without_padding(x, length):
    """Returns `x` `(batch, time, features)` with zeros from `length` `(batch,)` on."""
    if length is None:
        return x
    valid = ops.less(ops.arange(x.shape[1], dtype="int32"), length[:, None])
    return ops.where(valid[..., None], x, ops.zeros_like(x))


def _pad(x, count):
    return ops.pad(x, ((0, 0), (count, count), (0, 0)))
