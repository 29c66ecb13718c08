"""Several weighted means over tokens, by heads that share one context vector."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
from keras import ops

from lsmha_keras.arguments import plain, positive_int
from lsmha_keras.errors import InputError
from lsmha_keras.layers.attention_core import joint_mask, open_empty_masks
from lsmha_keras.layers.weight_arguments import (
    initial_values,
    set_weight_arguments,
    weight_config,
)
from lsmha_keras.types import Constraint, Initializer, Regularizer

CONTEXTS = ("learned", "mean")


@keras.saving.register_keras_serializable(package="lsmha_keras")
class LAMAPooling(keras.layers.Layer):
    """Low-rank multi-head pooling: as many weighted means of the tokens as there are heads.

    With tokens `x_t` of width `C`, a context vector `c` and two matrices `P, Q` of shape
    `(C, heads)`, head `m` weights the tokens by

    `a_m = softmax_t(tanh((P^T c)_m (Q^T x_t)_m))`

    and the means `sum_t a_mt x_t` of all heads are joined: `heads * C` numbers. No token is
    compared with another one, so the cost grows with the tokens, not with their square.

    A learned `c` adds no function: `P` and `c` amount to one factor per head. With the mean of the
    tokens as `c` the factors depend on the sequence. Everything is computed in float32.

    Args:
        num_heads: int, number of heads.
        context: `"learned"`, as in the paper, or `"mean"`. Defaults to `"learned"`.
        normalize: bool, whether each head's mean is scaled to length 1, as in the paper. Defaults
            to `False`.
        kernel_initializer: initializer of `P`, `Q` and `c`. Defaults to `"glorot_uniform"`.
        kernel_regularizer: regularizer of `P`, `Q` and `c`.
        kernel_constraint: constraint on them.
        **kwargs: base layer arguments, such as `name` and `dtype`.

    Call arguments:
        x: tokens, float tensor of shape `(batch, tokens, channels)`.
        padding_mask: optional boolean tensor `(batch, tokens)`, `False` for tokens that must not
            count. If none of a sequence's tokens count, all are weighted alike.
        mask, x_mask: the same, filled in by Keras with the mask of `x`; it ends here.

    Returns:
        A tensor of shape `(batch, num_heads * channels)` in the compute dtype.

    Raises:
        ValueError: if an argument is out of range, the input is not of rank 3, or a mask does not
            fit it.

    Example:

    ```python
    lsmha_keras.LAMAPooling(num_heads=4)(np.ones((2, 64, 128), "float32"))  # (2, 512)
    ```

    References:
        - [Mehta et al., 2019](https://arxiv.org/abs/1912.00835)
    """

    def __init__(
        self,
        num_heads: int,
        context: str = "learned",
        normalize: bool = False,
        kernel_initializer: Initializer = "glorot_uniform",
        kernel_regularizer: Regularizer = None,
        kernel_constraint: Constraint = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        if context not in CONTEXTS:
            raise InputError(f"`context` must be one of {CONTEXTS}. Received: context={context!r}")
        self.supports_masking = True
        self.num_heads = positive_int("num_heads", num_heads)
        self.context = context
        self.normalize = plain(normalize)
        set_weight_arguments(self, **locals())

    def build(self, input_shape):
        if len(input_shape) != 3:
            raise InputError(
                "`LAMAPooling` expects tokens of shape (batch, tokens, channels). "
                f"Received: input_shape={tuple(input_shape)}"
            )
        channels = input_shape[-1]
        self.context_kernel = self._add_kernel("context_kernel", (channels, self.num_heads))
        self.token_kernel = self._add_kernel("token_kernel", (channels, self.num_heads))
        if self.context == "learned":
            self.context_vector = self._add_kernel("context_vector", (1, channels))

    def _add_kernel(self, name, shape):
        return self.add_weight(
            name=name,
            shape=shape,
            # Whatever the policy: rounded scores would be wrong weights.
            dtype="float32",
            autocast=False,
            initializer=initial_values(self.kernel_initializer.clone()),
            regularizer=self.kernel_regularizer,
            constraint=self.kernel_constraint,
        )

    def call(self, x, padding_mask=None, mask=None, x_mask=None):
        mask = joint_mask(x, padding_mask=padding_mask, mask=mask, x_mask=x_mask)
        weights = self.token_weights(x, mask)  # (batch, heads, tokens)
        pooled = ops.matmul(weights, ops.cast(x, "float32"))  # (batch, heads, channels)
        if self.normalize:
            pooled = ops.normalize(pooled, axis=-1)
        flat = ops.reshape(pooled, (-1, self.num_heads * x.shape[-1]))
        return ops.cast(flat, self.compute_dtype)

    def token_weights(self, x: Any, mask: Any = None) -> Any:
        """Computes the share of each token in the mean of each head.

        Args:
            x: tokens, tensor of shape `(batch, tokens, channels)`; the layer is built.
            mask: optional boolean tensor `(batch, tokens)`, the tokens that count.

        Returns:
            A float32 tensor `(batch, heads, tokens)`; each row sums to 1.
        """
        x = ops.cast(x, "float32")
        factors = ops.matmul(self._context(x, mask), self.context_kernel)  # (batch or 1, heads)
        scores = ops.tanh(ops.matmul(x, self.token_kernel) * factors[:, None])
        scores = ops.swapaxes(scores, 1, 2)
        if mask is not None:
            scores, mask = open_empty_masks(scores, mask)
            scores = ops.where(mask[:, None], scores, -np.inf)
        return ops.softmax(scores, axis=-1)

    def _context(self, x, mask):
        if self.context == "learned":
            return self.context_vector
        if mask is None:
            return ops.mean(x, axis=1)
        valid = ops.cast(mask, "float32")[..., None]
        return ops.sum(x * valid, axis=1) / ops.maximum(ops.sum(valid, axis=1), 1)

    def count_multiply_adds(self, tokens):
        """Returns the multiply-adds for one sample, an int: `2 T C M + C M`."""
        channels, heads = self.token_kernel.shape
        return (2 * tokens + 1) * channels * heads

    def compute_mask(self, x, previous_mask=None):
        """Returns `None`: what comes out has no tokens."""
        return None

    def compute_output_shape(self, input_shape):
        return (input_shape[0], self.num_heads * input_shape[-1])

    def get_config(self):
        return {
            **super().get_config(),
            "num_heads": self.num_heads,
            "context": self.context,
            "normalize": self.normalize,
            **weight_config(self, "kernel"),
        }
