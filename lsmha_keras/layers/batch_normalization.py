"""Batch normalisation by each framework's fused kernel."""

import keras
from keras import ops

from lsmha_keras.arguments import plain


# Named like Keras's layer: files of weights hold the class's name in the paths of the variables.
@keras.saving.register_keras_serializable(package="lsmha_keras")
class BatchNormalization(keras.layers.BatchNormalization):
    """`keras.layers.BatchNormalization` of images, channels last, computed in one kernel.

    Keras (3.15) writes batch normalisation as a chain of element-wise operations, each of which
    passes over the whole image. This layer calls the fused kernel of TensorFlow and PyTorch in
    training. XLA fuses the chain by itself, so on JAX, and at inference, it is Keras's layer.

    Args:
        momentum: float, of the running statistics. Defaults to `0.9`.
        epsilon: float. Defaults to `1e-5`.
        **kwargs: arguments of `keras.layers.BatchNormalization`; with another axis, without scale
            or centre, synchronised or renormalised it is Keras's layer.

    Call arguments:
        x: float tensor of shape `(batch, height, width, channels)`.
        training: bool or `None`.
        mask: optional boolean tensor of shape `(batch, height, width)`, `False` where values do not
            count; with it, it is Keras's layer.

    Returns:
        A tensor of the shape of `x`, in the compute dtype.

    Example:

    ```python
    from lsmha_keras.layers.batch_normalization import BatchNormalization

    BatchNormalization()(np.zeros((2, 4, 4, 8), "float32"), training=True)
    ```

    References:
        - [Ioffe and Szegedy, 2015](https://arxiv.org/abs/1502.03167)
    """

    def __init__(self, momentum=0.9, epsilon=1e-5, **kwargs):
        super().__init__(momentum=plain(momentum), epsilon=plain(epsilon), **kwargs)

    def call(self, x, training=None, mask=None):
        fused = _FUSED.get(keras.config.backend())
        in_one_kernel = fused and training and self.trainable and mask is None and self._is_usual(x)
        if not in_one_kernel:
            return super().call(x, training=training, mask=mask)
        gamma, beta = (ops.cast(weight, "float32") for weight in (self.gamma, self.beta))
        x = ops.cast(x, self.compute_dtype)
        outputs, mean, variance = fused(x, gamma, beta, self.epsilon)
        for running, batch in ((self.moving_mean, mean), (self.moving_variance, variance)):
            kept = running * self.momentum
            running.assign(kept + ops.cast(batch, running.dtype) * (1.0 - self.momentum))
        return outputs

    def _is_usual(self, x):
        usual = self.scale and self.center and not self.synchronized
        is_last = self.axis in (-1, 3)
        return len(x.shape) == 4 and is_last and usual and not getattr(self, "renorm", False)


def _tensorflow(x, gamma, beta, epsilon):
    import tensorflow as tf

    # The variance in the running statistics is Keras's, over n; TensorFlow returns it over n - 1.
    outputs, mean, variance = tf.compat.v1.nn.fused_batch_norm(
        x, gamma, beta, epsilon=epsilon, is_training=True
    )
    count = tf.cast(tf.size(x) / tf.shape(x)[-1], variance.dtype)
    return outputs, mean, variance * (count - 1) / count


def _torch(x, gamma, beta, epsilon):
    import torch

    # A view: PyTorch takes it for an image in the memory format "channels last".
    images = x.permute(0, 3, 1, 2)
    outputs, mean, inverse = torch.native_batch_norm(
        images, gamma, beta, None, None, True, 0.0, epsilon
    )
    return outputs.permute(0, 2, 3, 1), mean.detach(), inverse.detach() ** -2 - epsilon


_FUSED = {"tensorflow": _tensorflow, "torch": _torch}
