"""A convolution in the place of an early transformer block."""

import keras
from keras import ops

from lsmha_keras.layers.stochastic_depth import StochasticDepth


@keras.saving.register_keras_serializable(package="lsmha_keras")
class ConvBlock(keras.layers.Layer):
    """Residual convolution on the token grid, a drop-in for a `TransformerBlock`.

    `x = x + drop_path(gelu(batch_norm(conv(x))))`, with a `kernel_size` x `kernel_size` convolution
    that keeps grid and width. Tokens come in and go out as a sequence, so the weights of the blocks
    after it stay usable.

    Args:
        grid_shape: pair of ints, `(grid_height, grid_width)` of the tokens.
        kernel_size: int, side of the kernel. Defaults to `3`.
        stochastic_depth_rate: float in [0, 1), probability to skip the branch for a sample in
            training. Defaults to `0.0`.
        **kwargs: base layer arguments, such as `name` and `dtype`.

    Call arguments:
        x: tokens, float tensor of shape `(batch, grid_height * grid_width, channels)`.
        training: bool or `None`.

    Returns:
        A tensor of the shape of `x`, in the compute dtype.

    Raises:
        ValueError: if the number of tokens does not fit the grid.

    Example:

    ```python
    lsmha_keras.ConvBlock(grid_shape=(8, 8))(np.zeros((2, 64, 128), "float32"))
    ```

    References:
        - [Gross et al., 2025](https://arxiv.org/abs/2506.23832), convolutions for initial blocks
    """

    def __init__(self, grid_shape, kernel_size=3, stochastic_depth_rate=0.0, **kwargs):
        super().__init__(**kwargs)
        self.grid_shape = tuple(int(side) for side in grid_shape)
        if len(self.grid_shape) != 2 or min(self.grid_shape) < 1:
            raise ValueError(
                f"`grid_shape` must be two positive ints. Received: grid_shape={grid_shape}"
            )
        if not isinstance(kernel_size, int) or kernel_size < 1:
            raise ValueError(
                f"`kernel_size` must be a positive int. Received: kernel_size={kernel_size}"
            )
        self.kernel_size = kernel_size
        self.stochastic_depth_rate = stochastic_depth_rate
        self.batch_norm = keras.layers.BatchNormalization(
            axis=-1, momentum=0.9, epsilon=1e-5, dtype=self.dtype_policy, name="batch_norm"
        )
        self.drop_path = StochasticDepth(
            stochastic_depth_rate, dtype=self.dtype_policy, name="drop_path"
        )

    def build(self, input_shape):
        num_tokens = self.grid_shape[0] * self.grid_shape[1]
        if len(input_shape) != 3 or input_shape[1] != num_tokens:
            raise ValueError(
                f"`ConvBlock` of grid {self.grid_shape} expects tokens of shape (batch, "
                f"{num_tokens}, channels). Received: input_shape={input_shape}"
            )
        grid = (input_shape[0], *self.grid_shape, input_shape[-1])
        self.conv = keras.layers.Conv2D(
            input_shape[-1],
            self.kernel_size,
            padding="same",
            use_bias=False,  # The batch normalisation has one.
            kernel_initializer="he_normal",
            data_format="channels_last",
            dtype=self.dtype_policy,
            name="conv",
        )
        self.conv.build(grid)
        self.batch_norm.build(grid)

    def call(self, x, training=None):
        shape = ops.shape(x)
        grid = ops.reshape(x, (shape[0], *self.grid_shape, shape[-1]))
        branch = ops.gelu(self.batch_norm(self.conv(grid), training=training), approximate=False)
        return x + self.drop_path(ops.reshape(branch, shape), training=training)

    def compute_output_shape(self, input_shape):
        return tuple(input_shape)

    def get_config(self):
        return {
            **super().get_config(),
            "grid_shape": self.grid_shape,
            "kernel_size": self.kernel_size,
            "stochastic_depth_rate": self.stochastic_depth_rate,
        }
