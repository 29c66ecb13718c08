"""Attention-weighted mean over tokens."""

import keras
import numpy as np
from keras import ops

from lsmha_keras.layers.attention_core import open_empty_masks


@keras.saving.register_keras_serializable(package="lsmha_keras")
class SequencePooling(keras.layers.Layer):
    """Pools a sequence with weights learned from its tokens.

    `a = softmax_over_tokens(x w + b)`, `pooled = sum_t a_t x_t`, computed in float32 whatever the
    dtype policy.

    Args:
        kernel_initializer: initializer of `w`. Defaults to a truncated normal of standard deviation
            0.02.
        **kwargs: base layer arguments, such as `name` and `dtype`.

    Call arguments:
        x: tokens, float tensor of shape `(batch, tokens, channels)`.
        padding_mask: optional boolean tensor of shape `(batch, tokens)`, `False` for tokens that
            must not count. If none of an image's tokens count, they are all weighted alike.

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
            dtype="float32",  # Whatever the policy: rounded scores would be wrong weights.
            name="scores",
        )
        self.scores.build(input_shape)

    def call(self, x, padding_mask=None):
        scores = ops.squeeze(self.scores(x), axis=-1)  # (batch, tokens)
        if padding_mask is not None:
            mask = ops.convert_to_tensor(padding_mask, dtype="bool")
            scores, mask = open_empty_masks(scores, mask)
            scores = ops.where(mask, scores, -np.inf)
        weights = ops.softmax(scores, axis=-1)[:, None, :]
        pooled = ops.squeeze(ops.matmul(weights, ops.cast(x, "float32")), axis=1)
        return ops.cast(pooled, self.compute_dtype)

    def compute_output_shape(self, input_shape):
        return (input_shape[0], input_shape[-1])

    def get_config(self):
        return {
            **super().get_config(),
            "kernel_initializer": keras.initializers.serialize(self.kernel_initializer),
        }
