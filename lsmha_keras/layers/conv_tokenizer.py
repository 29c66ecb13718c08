"""Turns an image into a sequence of tokens with convolutions."""

import keras
from keras import ops


@keras.saving.register_keras_serializable(package="lsmha_keras")
class ConvTokenizer(keras.layers.Layer):
    """Convolutional tokenizer of the compact convolutional transformer.

    `num_layers` times: convolution without bias, then ReLU, then 3x3 max pooling with stride 2. The
    last convolution has `hidden_dim` filters, the others `num_filters`. The convolution has stride
    `max(1, kernel_size // 2 - 1)` and padding `max(1, kernel_size // 2)`.

    Args:
        hidden_dim: int, width of a token.
        num_layers: int, number of convolutions. Defaults to `1`.
        kernel_size: int, side of the convolution kernels. Defaults to `3`.
        num_filters: int, filters of all convolutions but the last. Defaults to `64`.
        kernel_initializer: initializer of the convolutions. Defaults to `"he_normal"`.
        **kwargs: base layer arguments, such as `name` and `dtype`.

    Call arguments:
        images: float tensor of shape `(batch, height, width, channels)`, channels last on every
            backend.

    Returns:
        Tokens of shape `(batch, grid_height * grid_width, hidden_dim)`, row by row. For 32x32
        images and 3x3 kernels, one layer gives 256 tokens and two give 64.

    Raises:
        ValueError: if an argument is out of range, the input is not of rank 4, or the image is too
            small to give a single token.

    Example:

    ```python
    tokens = lsmha_keras.ConvTokenizer(hidden_dim=128, num_layers=2)(
        np.zeros((1, 32, 32, 3), "float32")
    )  # (1, 64, 128)
    ```

    References:
        - [Hassani et al., 2021](https://arxiv.org/abs/2104.05704), section 3.3
    """

    def __init__(
        self,
        hidden_dim,
        num_layers=1,
        kernel_size=3,
        num_filters=64,
        kernel_initializer="he_normal",
        **kwargs,
    ):
        super().__init__(**kwargs)
        for name, value in (
            ("hidden_dim", hidden_dim),
            ("num_layers", num_layers),
            ("kernel_size", kernel_size),
            ("num_filters", num_filters),
        ):
            if not isinstance(value, int) or value < 1:
                raise ValueError(f"`{name}` must be a positive int. Received: {name}={value}")
        self.hidden_dim = hidden_dim
        self.num_layers = num_layers
        self.kernel_size = kernel_size
        self.num_filters = num_filters
        self.kernel_initializer = keras.initializers.get(kernel_initializer)

        stride, padding = max(1, kernel_size // 2 - 1), max(1, kernel_size // 2)
        # "same" pads like the reference only at stride 1; at other strides it pads unevenly.
        self._pad_explicitly = stride > 1 or kernel_size != 2 * padding + 1
        shared = {"data_format": "channels_last", "dtype": self.dtype_policy}
        self.conv_padding = keras.layers.ZeroPadding2D(padding, name="conv_padding", **shared)
        self.convs = [
            keras.layers.Conv2D(
                hidden_dim if i == num_layers - 1 else num_filters,
                kernel_size,
                strides=stride,
                padding="valid" if self._pad_explicitly else "same",
                use_bias=False,
                kernel_initializer=self.kernel_initializer.__class__.from_config(
                    self.kernel_initializer.get_config()
                ),
                name=f"conv_{i}",
                **shared,
            )
            for i in range(num_layers)
        ]
        self.pool_padding = keras.layers.ZeroPadding2D(1, name="pool_padding", **shared)
        self.pool = keras.layers.MaxPooling2D(3, 2, name="pool", **shared)

    def build(self, input_shape):
        self.grid_shape(input_shape)
        for conv in self.convs:
            conv.build(input_shape)
            input_shape = (*input_shape[:-1], conv.filters)
        for layer in (self.conv_padding, self.pool_padding, self.pool):
            layer.build(input_shape)

    def grid_shape(self, input_shape):
        """Returns `(grid_height, grid_width)` for images `(batch, height, width, channels)`."""
        if len(input_shape) != 4:
            raise ValueError(
                "`ConvTokenizer` expects images of shape (batch, height, width, channels). "
                f"Received: input_shape={input_shape}"
            )
        stride, padding = max(1, self.kernel_size // 2 - 1), max(1, self.kernel_size // 2)
        sides = []
        for side in input_shape[1:3]:
            for _ in range(self.num_layers):
                if side is None:
                    break
                side = (side + 2 * padding - self.kernel_size) // stride + 1
                side = (side - 1) // 2 + 1
            sides.append(side)
        if any(side is not None and side < 1 for side in sides):
            raise ValueError(
                f"`ConvTokenizer` with {self.num_layers} layers leaves no token of images this "
                f"small. Received: input_shape={input_shape}"
            )
        return tuple(sides)

    def call(self, images):
        x = images
        for conv in self.convs:
            if self._pad_explicitly:
                x = self.conv_padding(x)
            # Pooling first is exact, as ReLU and maximum are both monotone and zeros pad harmlessly
            # under a ReLU, and leaves the ReLU a quarter of the values.
            x = ops.relu(self.pool(self.pool_padding(conv(x))))
        return ops.reshape(x, (ops.shape(x)[0], -1, self.hidden_dim))

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
            "kernel_initializer": keras.initializers.serialize(self.kernel_initializer),
        }
