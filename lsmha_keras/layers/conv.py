"""Convolution and pooling of images that are fast on every backend."""

import keras
from keras import ops


# Weight files name the layers of a list after their class, so presets need this name.
@keras.saving.register_keras_serializable(package="lsmha_keras")
class Conv2D(keras.layers.Conv2D):
    """`keras.layers.Conv2D` on images `(batch, height, width, channels)`.

    On PyTorch, Keras 3.15 copies the images twice before a convolution, to a layout with channels
    first and back. Here PyTorch gets a view with the channels first, and nothing is copied.

    Args:
        filters: int.
        kernel_size: int, or `(height, width)`.
        **kwargs: arguments of `keras.layers.Conv2D`, except `data_format`.

    Call arguments:
        x: float tensor of shape `(batch, height, width, channels)`.

    Returns:
        A tensor `(batch, new_height, new_width, filters)`, in the compute dtype.

    Example:

    ```python
    from lsmha_keras.layers.conv import Conv2D

    Conv2D(8, 3)(np.zeros((1, 4, 4, 3), "float32")).shape  # (1, 2, 2, 8)
    ```
    """

    def __init__(self, filters, kernel_size, **kwargs):
        super().__init__(filters, kernel_size, data_format="channels_last", **kwargs)

    def convolution_op(self, inputs, kernel):
        if keras.config.backend() != "torch":
            return super().convolution_op(inputs, kernel)
        outputs = ops.conv(
            channels_first(inputs),
            kernel,
            strides=self.strides,
            padding=self.padding,
            dilation_rate=self.dilation_rate,
            data_format="channels_first",
        )
        return channels_last(outputs)

    def get_config(self):
        config = super().get_config()
        del config["data_format"]
        return config


def channels_first(images):
    """Returns images `(batch, height, width, channels)` with the channels first."""
    return ops.transpose(images, (0, 3, 1, 2))


def channels_last(images):
    """Returns images `(batch, channels, height, width)` with the channels last."""
    return ops.transpose(images, (0, 2, 3, 1))


def max_pool_relu(images):
    """Takes the largest of 3 x 3 pixels at stride 2, then ReLU, which makes the border's values 0.

    XLA computes the gradient of a pooling on a CPU one window after the other, and Keras copies the
    images on PyTorch, as it does for `Conv2D`. So JAX takes the largest along columns, then along
    rows, and PyTorch's own pooling gets a view. Equal pixels share the gradient on JAX; elsewhere
    the first gets it.

    Args:
        images: float tensor `(batch, height, width, channels)`.

    Returns:
        A tensor `(batch, (height + 1) // 2, (width + 1) // 2, channels)`.

    Example:

    ```python
    from lsmha_keras.layers.conv import max_pool_relu

    max_pool_relu(np.ones((1, 4, 4, 1), "float32")).shape  # (1, 2, 2, 1)
    ```
    """
    # Pooling before the ReLU is exact, as both are monotone, and leaves it a quarter of the values.
    return ops.relu(_POOLS.get(keras.config.backend(), _pool_with_padding)(images))


def _pool_on_torch(images):
    from torch.nn.functional import max_pool2d

    return channels_last(max_pool2d(channels_first(images), 3, stride=2, padding=1))


def _pool_with_padding(images):
    padded = ops.pad(images, ((0, 0), (1, 1), (1, 1), (0, 0)))
    return ops.max_pool(padded, 3, 2, data_format="channels_last")


def _pool_on_jax(images):
    return _max_along(_max_along(images, 1), 2)


def _max_along(images, axis):
    """Takes the largest of three neighbours at stride 2."""
    outputs = (images.shape[axis] + 1) // 2
    padded = ops.pad(images, [(1, 1) if i == axis else (0, 0) for i in range(4)])
    before = (slice(None),) * axis
    first, middle, last = (
        padded[(*before, slice(start, start + 2 * outputs - 1, 2))] for start in range(3)
    )
    return ops.maximum(ops.maximum(first, middle), last)


_POOLS = {"torch": _pool_on_torch, "jax": _pool_on_jax}
