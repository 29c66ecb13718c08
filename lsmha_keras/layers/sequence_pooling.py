"""Attention-weighted mean over tokens."""

import keras
from keras import ops

_MASKED = -1e9


@keras.saving.register_keras_serializable(package="lsmha_keras")
class SequencePooling(keras.layers.Layer):
    """Pools a sequence with weights learned from its tokens.

    `a = softmax_over_tokens(x w + b)`, `pooled = sum_t a_t x_t`, with the softmax in float32.

    Args:
        kernel_initializer: initializer of `w`. Defaults to a truncated normal of standard deviation
            0.02.
        **kwargs: base layer arguments, such as `name` and `dtype`.

    Call arguments:
        x: tokens, float tensor of shape `(batch, tokens, channels)`.
        padding_mask: optional boolean tensor of shape `(batch, tokens)`, `False` for tokens that
            must not count.

    Returns:
        A tensor of shape `(batch, channels)` in the compute dtype.

    Raises:
        ValueError: if the input is not of rank 3.

    Example:

    ```python
    pooled = lsmha_keras.SequencePooling()(np.ones((2, 64, 128), "float32"))  # (2, 128)
    ```

    References:
        - [Hassani et al., 2021](https://arxiv.org/abs/2104.05704), section 3.2
    """

    def __init__(self, kernel_initializer=None, **kwargs):
        super().__init__(**kwargs)
        self.kernel_initializer = keras.initializers.get(
            kernel_initializer or keras.initializers.TruncatedNormal(stddev=0.02)
        )

    def build(self, input_shape):
        if len(input_shape) != 3:
            raise ValueError(
                "`SequencePooling` expects tokens of shape (batch, tokens, channels). "
                f"Received: input_shape={input_shape}"
            )
        self.scores = keras.layers.Dense(
            1,
            kernel_initializer=self.kernel_initializer,
            dtype=self.dtype_policy,
            name="scores",
        )
        self.scores.build(input_shape)

    def call(self, x, padding_mask=None):
        scores = ops.cast(ops.squeeze(self.scores(x), axis=-1), "float32")  # (batch, tokens)
        if padding_mask is not None:
            scores = ops.where(ops.cast(padding_mask, "bool"), scores, _MASKED)
        weights = ops.cast(ops.softmax(scores, axis=-1), x.dtype)
        return ops.squeeze(ops.matmul(weights[:, None, :], x), axis=1)

    def compute_output_shape(self, input_shape):
        return (input_shape[0], input_shape[-1])

    def get_config(self):
        return {
            **super().get_config(),
            "kernel_initializer": keras.initializers.serialize(self.kernel_initializer),
        }
