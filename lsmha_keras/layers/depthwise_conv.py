"""Depthwise convolution that is fast on every backend."""

import keras
from keras import ops

from lsmha_keras.arguments import plain
from lsmha_keras.errors import InputError
from lsmha_keras.layers.conv import channels_first, channels_last

# What the sum of shifted images assumes.
_FIXED = ("strides", "padding", "depth_multiplier", "data_format", "dilation_rate", "activation")


@keras.saving.register_keras_serializable(package="lsmha_keras")
class DepthwiseConv(keras.layers.DepthwiseConv2D):
    """`keras.layers.DepthwiseConv2D` of stride 1 with "same" padding and one filter per channel.

    On JAX and a CPU it is computed as a sum of shifted images, each times its entry of the kernel,
    which XLA makes one loop over the image. XLA's own grouped convolution, not made for groups of
    one channel, is far slower there. On PyTorch images are not copied, as in `Conv2D`. Elsewhere it
    is Keras's.

    Args:
        kernel_size: int, side of the kernel.
        use_bias: bool. Defaults to `True`.
        depthwise_initializer: initializer of the kernel. Defaults to `"he_normal"`.
        **kwargs: arguments of `keras.layers.DepthwiseConv2D`, such as `depthwise_regularizer` and
            `name`, except `activation` and those that change the geometry.

    Call arguments:
        x: float tensor of shape `(batch, height, width, channels)`.

    Returns:
        A tensor of the shape of `x`, in the compute dtype.

    Raises:
        ValueError: if an argument is given that is not to be chosen.

    Example:

    ```python
    from lsmha_keras.layers.depthwise_conv import DepthwiseConv

    DepthwiseConv(3)(np.zeros((1, 4, 4, 8), "float32"))
    ```
    """

    def __init__(self, kernel_size, use_bias=True, depthwise_initializer="he_normal", **kwargs):
        if fixed := [name for name in _FIXED if name in kwargs]:
            raise InputError(
                "`DepthwiseConv` has stride 1, one filter per channel and no activation: use "
                f"`keras.layers.DepthwiseConv2D` for others. Received: {', '.join(fixed)}"
            )
        super().__init__(
            plain(kernel_size),
            padding="same",
            data_format="channels_last",
            use_bias=use_bias,
            depthwise_initializer=depthwise_initializer,
            **kwargs,
        )

    def call(self, x):
        backend = keras.config.backend()
        if backend == "torch":  # a view, where Keras copies the images twice
            outputs = channels_last(
                ops.depthwise_conv(
                    channels_first(x), self.kernel, padding="same", data_format="channels_first"
                )
            )
            return outputs + self.bias if self.use_bias else outputs
        if backend != "jax" or not _on_cpu():
            return super().call(x)
        height, width = x.shape[1:3]
        # As "same" pads: the larger half of what is missing at the end.
        pads = [((side - 1) // 2, side // 2) for side in self.kernel_size]
        padded = ops.pad(x, ((0, 0), *pads, (0, 0)))
        kernel = self.kernel[..., 0]  # (height, width, channels)
        shifted = (
            padded[:, i : i + height, j : j + width] * kernel[i, j]
            for i in range(self.kernel_size[0])
            for j in range(self.kernel_size[1])
        )
        outputs = sum(shifted)
        return outputs + self.bias if self.use_bias else outputs

    def get_config(self):
        config = super().get_config()
        convolution = ("rank", "groups", *_FIXED)
        return {name: value for name, value in config.items() if name not in convolution}


def _on_cpu():
    import jax

    return jax.default_backend() == "cpu"
