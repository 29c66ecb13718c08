"""A block that mixes tokens by a filter of their frequencies, as in SpectFormer."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
from keras import ops

from lsmha_keras.arguments import grid
from lsmha_keras.layers.mixer_block import MixerBlock
from lsmha_keras.layers.weight_arguments import initial_values


@keras.saving.register_keras_serializable(package="lsmha_keras")
class SpectralBlock(MixerBlock):
    """A learnt filter of the token grid's frequencies and a perceptron, in one residual branch.

    `x = x + drop_path(mlp(LN(filter(LN(x)))))`. The filter multiplies every frequency of every
    channel by a complex number, which is a circular convolution as large as the grid.

    For a grid `h x w` of tokens of width `C`, beside the perceptron's: parameters
    `2 h (w // 2 + 1) C`, multiply-adds `4 h (w // 2 + 1) (w + 2 h) C` (the Fourier transforms are
    products with small matrices, the same on every backend).

    Args:
        grid_shape: pair of ints, `(grid_height, grid_width)` of the tokens.
        mlp_dim: int, width of the perceptron's hidden layer.
        **kwargs: arguments of `TransformerBlock` that do not concern attention: `dropout_rate`,
            `stochastic_depth_rate`, `layer_norm_epsilon`, those of kernels and biases, and base
            layer arguments.

    Call arguments:
        x: tokens, float tensor of shape `(batch, grid_height * grid_width, channels)`.
        training: bool or `None`.

    Returns:
        A tensor of the shape of `x`, in the compute dtype.

    Raises:
        ValueError: if an argument is out of range or the number of tokens does not fit the grid.

    Example:

    ```python
    block = lsmha_keras.SpectralBlock(grid_shape=(8, 8), mlp_dim=128)
    block(np.zeros((2, 64, 128), "float32"))  # (2, 64, 128)
    ```

    References:
        - [Patro et al., 2023](https://arxiv.org/abs/2304.06446), SpectFormer
        - [Rao et al., 2021](https://arxiv.org/abs/2107.00645), filters of frequencies
    """

    def make_mixer(self) -> Any:
        return SpectralFilter(self.grid_shape, dtype=self.dtype_policy, name="mixer")

    def call(self, x, training=None):
        filtered = self.mixer(self.mixer_norm(x))
        return x + self.drop(self.mlp(self.mlp_norm(filtered), training), training)


@keras.saving.register_keras_serializable(package="lsmha_keras")
class SpectralFilter(keras.layers.Layer):
    """Multiplies the frequencies of a grid of tokens by complex weights.

    `irfft2(weights * rfft2(x))`, in float32. Imaginary parts of frequencies that are their own
    conjugates have no effect, nor has what is not symmetric in the first and the last column.

    Args:
        grid_shape: pair of ints, `(grid_height, grid_width)` of the tokens.
        **kwargs: base layer arguments, such as `name` and `dtype`.

    Call arguments:
        x: tokens, float tensor of shape `(batch, grid_height * grid_width, channels)`.

    Returns:
        A tensor of the shape of `x`, in the compute dtype.
    """

    def __init__(self, grid_shape, **kwargs):
        super().__init__(**kwargs)
        self.grid_shape = grid(grid_shape)

    def build(self, input_shape):
        height, width = self.grid_shape
        self.frequencies = self.add_weight(
            name="frequencies",
            shape=(height, width // 2 + 1, input_shape[-1], 2),
            initializer=initial_values(keras.initializers.RandomNormal(stddev=0.02)),
            autocast=False,
        )
        self._rows, self._columns, self._columns_back, self._rows_back = _transforms(height, width)

    def call(self, x):
        x = ops.cast(x, "float32")
        height, width = self.grid_shape
        # Axis p holds real and imaginary parts; k, u are frequencies along a row and a column.
        x = ops.reshape(x, (-1, height, width, x.shape[-1]))
        x = ops.einsum("bhwc,wpk->bhpkc", x, self._rows)
        x = ops.einsum("bhpkc,phqu->buqkc", x, self._columns)
        real, imaginary = x[:, :, 0], x[:, :, 1]
        a, b = self.frequencies[..., 0], self.frequencies[..., 1]
        x = ops.stack([real * a - imaginary * b, real * b + imaginary * a], axis=2)
        x = ops.einsum("buqkc,quph->bhpkc", x, self._columns_back)
        x = ops.einsum("bhpkc,pkw->bhwc", x, self._rows_back)
        x = ops.reshape(x, (-1, height * width, x.shape[-1]))
        return ops.cast(x, self.compute_dtype)

    def count_multiply_adds(self, tokens):
        """Returns the multiply-adds of the transforms of one sample, an int."""
        height, width = self.grid_shape
        channels = self.frequencies.shape[2]
        return 4 * tokens * channels * (width // 2 + 1) * (width + 2 * height) // width

    def compute_output_shape(self, input_shape):
        return tuple(input_shape)

    def get_config(self):
        return {**super().get_config(), "grid_shape": self.grid_shape}


def _transforms(height, width):
    """Returns real matrices of the orthonormal transforms: of rows, of columns, and back."""
    count = width // 2 + 1
    row = np.exp(-2j * np.pi * np.outer(np.arange(width), np.arange(count)) / width)
    row = row / np.sqrt(width)  # (width, count)
    column = np.exp(-2j * np.pi * np.outer(np.arange(height), np.arange(height)) / height)
    column = column / np.sqrt(height)
    # Frequencies that are not kept are conjugates of those that are.
    twice = np.where((np.arange(count) == 0) | (2 * np.arange(count) == width), 1, 2)
    back = (twice * row).T
    matrices = (
        np.stack([row.real, row.imag], axis=1),
        _as_real(column),
        _as_real(column.conj()),
        np.stack([back.real, back.imag]),
    )
    return [matrix.astype("float32") for matrix in matrices]


def _as_real(matrix):
    """A complex `(n, m)` matrix as a real one of pairs, `(2, n, 2, m)`."""
    real, imaginary = matrix.real, matrix.imag
    return np.stack(
        [np.stack([real, imaginary], axis=1), np.stack([-imaginary, real], axis=1)], axis=0
    )
