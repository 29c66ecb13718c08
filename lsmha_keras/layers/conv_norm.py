"""A convolution and its batch normalisation, foldable into one convolution."""

import keras
import numpy as np
from keras import ops

from lsmha_keras.arguments import plain, positive_int
from lsmha_keras.errors import InputError
from lsmha_keras.layers.batch_normalization import BatchNormalization
from lsmha_keras.layers.conv import Conv2D
from lsmha_keras.layers.depthwise_conv import DepthwiseConv
from lsmha_keras.layers.weight_arguments import (
    set_weight_arguments,
    weight_arguments,
    weight_config,
)


@keras.saving.register_keras_serializable(package="lsmha_keras")
class ConvNorm(keras.layers.Layer):
    """Convolution without bias and batch normalisation; folded, one convolution with bias.

    With `parallel=True` it trains three branches whose sum folds into the same one convolution: the
    convolution, a 1 x 1 convolution, and the input itself, each with its own normalisation.

    Args:
        filters: int, or `None` for a depthwise convolution, one filter per channel.
        kernel_size: int, side of the kernel, or `(height, width)`. Defaults to `3`.
        parallel: bool, see above; needs as many filters as channels. Defaults to `False`.
        fused: bool, whether this is the folded form. Defaults to `False`.
        kernel_initializer: initializer of the kernels. Defaults to `"he_normal"`.
        kernel_regularizer: regularizer of the kernels.
        kernel_constraint: constraint on the kernels.
        **kwargs: base layer arguments, such as `name`, `dtype` and `activity_regularizer`.

    Call arguments:
        x: float tensor of shape `(batch, height, width, channels)`.
        training: bool or `None`.
        padding_mask: optional boolean tensor `(batch, height, width)`, `False` for padding: it
            enters as zeros, and the statistics of a training batch leave it out.

    Returns:
        A tensor of shape `(batch, height, width, filters)`, in the compute dtype.

    Raises:
        ValueError: if `kernel_size` or `filters` is no positive int, or branches to add have
            another number of filters than the input has channels.

    Example:

    ```python
    from lsmha_keras.layers.conv_norm import ConvNorm

    layer = ConvNorm(8, parallel=True)
    layer(np.zeros((1, 4, 4, 8), "float32"))
    folded = ConvNorm(8, parallel=True, fused=True)
    folded.build((None, 4, 4, 8))
    folded.set_weights(layer.fused_weights())  # gives the same at inference
    ```

    References:
        - [Ding et al., 2021](https://arxiv.org/abs/2101.03697), the three branches
    """

    def __init__(
        self,
        filters=None,
        kernel_size=3,
        parallel=False,
        fused=False,
        kernel_initializer="he_normal",
        kernel_regularizer=None,
        kernel_constraint=None,
        **kwargs,
    ):
        super().__init__(**kwargs)
        # The mask that normalisation attaches to its output is no concern of the next layer.
        self.supports_masking = True
        self.filters = None if filters is None else positive_int("filters", filters)
        self.kernel_size = _kernel(kernel_size)
        self.parallel = plain(parallel)
        self.fused = plain(fused)
        set_weight_arguments(self, **locals())

    def build(self, input_shape):
        channels = input_shape[-1]
        if self.parallel and self.filters not in (None, channels):
            raise InputError(
                "With `parallel=True` the input is added to the output: `filters` must be its "
                f"channels. Received: filters={self.filters}, {channels} channels"
            )
        self._branches = [self._make_branch("", self._make_conv(self.kernel_size, "conv"))]
        if self.parallel and not self.fused:
            self._branches.append(self._make_branch("pointwise_", self._make_conv(1, "pointwise")))
            self._branches.append(self._make_branch("identity_", keras.layers.Identity()))
        for conv, norm in self._branches:
            conv.build(input_shape)
            if norm is not None:
                norm.build(self.compute_output_shape(input_shape))

    def _make_conv(self, kernel_size, name):
        settings = {
            "use_bias": self.fused,  # The batch normalisation has a bias.
            "dtype": self.dtype_policy,
            "name": name,
        }
        kernel = weight_arguments(self, "kernel")
        if self.filters is None:
            kernel = {key.replace("kernel", "depthwise"): value for key, value in kernel.items()}
            return DepthwiseConv(kernel_size, **settings, **kernel)
        return Conv2D(self.filters, kernel_size, padding="same", **settings, **kernel)

    def _make_branch(self, prefix, conv):
        norm = None
        if not self.fused:
            norm = BatchNormalization(dtype=self.dtype_policy, name=f"{prefix}batch_norm")
        return conv, norm

    def call(self, x, training=None, padding_mask=None):
        if padding_mask is not None:
            x = x * ops.cast(padding_mask, x.dtype)[..., None]
        outputs = [
            conv(x) if norm is None else norm(conv(x), training=training, mask=padding_mask)
            for conv, norm in self._branches
        ]
        return sum(outputs[1:], outputs[0])

    def fused_weights(self):
        """Returns kernel and bias of the one convolution this layer amounts to at inference.

        Returns:
            A list of two float32 arrays, the weights of the layer with `fused=True`.
        """
        if self.fused:
            return self.get_weights()
        folded = [self._fold(conv, norm) for conv, norm in self._branches]
        kernel, bias = folded[0]
        middle = tuple((side - 1) // 2 for side in kernel.shape[:2])
        for other, other_bias in folded[1:]:
            kernel[middle] += other[0, 0]
            bias += other_bias
        return [kernel, bias]

    def _fold(self, conv, norm):
        """Multiplies a normalisation by its running statistics into the branch before it."""
        gamma, beta, mean, variance, *kernel = (
            ops.convert_to_numpy(ops.cast(weight, "float32"))
            for weight in (
                norm.gamma,
                norm.beta,
                norm.moving_mean,
                norm.moving_variance,
                *conv.weights,
            )
        )
        scale = gamma / np.sqrt(variance + norm.epsilon)
        if kernel:
            kernel = kernel[0]
        else:  # the input itself: a 1 x 1 convolution that changes nothing
            ones = np.ones((len(scale), 1)) if self.filters is None else np.eye(len(scale))
            kernel = ones[None, None].astype("float32")
        # A depthwise kernel is (side, side, channels, 1), another (side, side, channels, filters).
        return kernel * (scale[:, None] if self.filters is None else scale), beta - mean * scale

    def compute_output_shape(self, input_shape):
        return (*input_shape[:-1], self.filters or input_shape[-1])

    def get_config(self):
        return {
            **super().get_config(),
            "filters": self.filters,
            "kernel_size": self.kernel_size,
            "parallel": self.parallel,
            "fused": self.fused,
            **weight_config(self, "kernel"),
        }


def _kernel(size):
    """Returns the size of a kernel, an int or a pair of ints."""
    if isinstance(size, (tuple, list)) and len(size) == 2:
        return tuple(positive_int("kernel_size", side) for side in size)
    return positive_int("kernel_size", size)
