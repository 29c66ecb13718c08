"""Attention-weighted mean over tokens."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
from keras import ops

from lsmha_keras.errors import InputError
from lsmha_keras.layers.attention_core import joint_mask, open_empty_masks
from lsmha_keras.layers.weight_arguments import (
    set_weight_arguments,
    weight_arguments,
    weight_config,
)
from lsmha_keras.types import Constraint, Initializer, Regularizer


@keras.saving.register_keras_serializable(package="lsmha_keras")
class SequencePooling(keras.layers.Layer):
    """Pools a sequence with weights learned from its tokens.

    `a = softmax_over_tokens(x w + b)`, `pooled = sum_t a_t x_t`, computed in float32 whatever the
    dtype policy.

    Args:
        kernel_initializer: initializer of `w`. Defaults to a truncated normal of standard deviation
            0.02.
        bias_initializer: initializer of `b`. Defaults to `"zeros"`.
        kernel_regularizer, bias_regularizer: regularizers of `w` and `b`.
        kernel_constraint, bias_constraint: constraints on them.
        **kwargs: base layer arguments, such as `name`, `dtype` and `activity_regularizer`.

    Call arguments:
        x: tokens, float tensor of shape `(batch, tokens, channels)`.
        padding_mask: optional boolean tensor of shape `(batch, tokens)`, `False` for tokens that
            must not count. If none of an image's tokens count, they are all weighted alike.
        mask, x_mask: the same, filled in by Keras with the mask of `x`; it ends here. Tokens count
            that no mask leaves out.

    Returns:
        A tensor of shape `(batch, channels)` in the compute dtype.

    Raises:
        ValueError: if the input is not of rank 3, or a mask does not fit it.

    Example:

    ```python
    pooled = lsmha_keras.SequencePooling()(np.ones((2, 64, 128), "float32"))  # (2, 128)
    ```

    References:
        - [Hassani et al., 2021](https://arxiv.org/abs/2104.05704), section 3.2
    """

    def __init__(
        self,
        kernel_initializer: Initializer = None,
        bias_initializer: Initializer = "zeros",
        kernel_regularizer: Regularizer = None,
        bias_regularizer: Regularizer = None,
        kernel_constraint: Constraint = None,
        bias_constraint: Constraint = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.supports_masking = True
        set_weight_arguments(self, default_stddev=0.02, **locals())

    def build(self, input_shape):
        if len(input_shape) != 3:
            raise InputError(
                "`SequencePooling` expects tokens of shape (batch, tokens, channels). "
                f"Received: input_shape={input_shape}"
            )
        self.scores = keras.layers.Dense(
            1,
            dtype="float32",  # Whatever the policy: rounded scores would be wrong weights.
            name="scores",
            **weight_arguments(self, "kernel", "bias"),
        )
        self.scores.build(input_shape)

    def call(self, x, padding_mask=None, mask=None, x_mask=None):
        mask = joint_mask(x, padding_mask=padding_mask, mask=mask, x_mask=x_mask)
        weights = self.token_weights(x, mask)[:, None, :]
        pooled = ops.squeeze(ops.matmul(weights, ops.cast(x, "float32")), axis=1)
        return ops.cast(pooled, self.compute_dtype)

    def token_weights(self, x: Any, mask: Any = None) -> Any:
        """Computes the share of each token in the pooled one.

        Args:
            x: tokens, tensor of shape `(batch, tokens, channels)`; the layer is built.
            mask: optional boolean tensor of shape `(batch, tokens)`, the tokens that count.

        Returns:
            A float32 tensor of shape `(batch, tokens)`; each row sums to 1.
        """
        scores = ops.squeeze(self.scores(x), axis=-1)  # (batch, tokens)
        if mask is not None:
            scores, mask = open_empty_masks(scores, mask)
            scores = ops.where(mask, scores, -np.inf)
        return ops.softmax(scores, axis=-1)

    def compute_mask(self, x, previous_mask=None):
        """Returns `None`: what comes out has no tokens."""
        return None

    def compute_output_shape(self, input_shape):
        return (input_shape[0], input_shape[-1])

    def get_config(self):
        return {**super().get_config(), **weight_config(self, "kernel", "bias")}
