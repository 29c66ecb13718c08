"""Turns a sequence of word embeddings or measurements into tokens with a recurrent network."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras
from keras import ops

from lsmha_keras.arguments import positive_int
from lsmha_keras.errors import InputError
from lsmha_keras.layers.attention_core import joint_mask
from lsmha_keras.layers.weight_arguments import (
    initial_values,
    set_weight_arguments,
    weight_arguments,
    weight_config,
)
from lsmha_keras.types import Constraint, Initializer, Regularizer


@keras.saving.register_keras_serializable(package="lsmha_keras")
class GRUTokenizer(keras.layers.Layer):
    """Recurrent tokenizer: a bidirectional GRU, one token for each step of the sequence.

    It is the encoder of LAMA's text models. Half of a token's channels are a GRU's state after all
    steps up to its own, the other half that of a second GRU which reads backwards from the last
    step that is no padding. So a token depends on the whole sequence, but never on padding.

    The steps run one after the other: on GPUs it is slower than `SequenceTokenizer`.

    Args:
        hidden_dim: int, width of a token, even.
        num_layers: int, number of bidirectional layers. Defaults to `1`.
        kernel_initializer: initializer of the input kernels. Defaults to `"glorot_uniform"`.
        kernel_regularizer: regularizer of the input kernels.
        kernel_constraint: constraint on them.
        **kwargs: base layer arguments, such as `name` and `dtype`.

    Call arguments:
        x: float tensor of shape `(batch, time, features)`.
        padding_mask: optional boolean tensor `(batch, time)`, `False` for padding, which comes
            after everything else.
        mask, x_mask: the same, filled in by Keras with the mask of `x`.

    Returns:
        Tokens of shape `(batch, time, hidden_dim)`, zero at padding.

    Raises:
        ValueError: if an argument is out of range, the input is not of rank 3, or a mask does not
            fit it.

    Example:

    ```python
    lsmha_keras.GRUTokenizer(hidden_dim=128)(np.zeros((2, 64, 300), "float32"))  # (2, 64, 128)
    ```

    References:
        - [Cho et al., 2014](https://arxiv.org/abs/1406.1078)
        - [Mehta et al., 2019](https://arxiv.org/abs/1912.00835)
    """

    def __init__(
        self,
        hidden_dim: int,
        num_layers: int = 1,
        kernel_initializer: Initializer = "glorot_uniform",
        kernel_regularizer: Regularizer = None,
        kernel_constraint: Constraint = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.supports_masking = True
        self.hidden_dim = positive_int("hidden_dim", hidden_dim)
        self.num_layers = positive_int("num_layers", num_layers)
        if self.hidden_dim % 2:
            raise InputError(
                "Half of a token's channels read forwards and half backwards: `hidden_dim` must be "
                f"even. Received: hidden_dim={hidden_dim}"
            )
        set_weight_arguments(
            self,
            kernel_initializer=kernel_initializer,
            kernel_regularizer=kernel_regularizer,
            kernel_constraint=kernel_constraint,
        )
        # Not `keras.layers.Bidirectional`: it copies its layer by its config, and the initializers
        # of a model that is being loaded have none.
        self.forward_layers = [self._make_gru(f"forward_{i}") for i in range(self.num_layers)]
        self.backward_layers = [
            self._make_gru(f"backward_{i}", go_backwards=True) for i in range(self.num_layers)
        ]

    def _make_gru(self, name, **arguments):
        return keras.layers.GRU(
            self.hidden_dim // 2,
            return_sequences=True,
            recurrent_initializer=initial_values(keras.initializers.Orthogonal()),
            dtype=self.dtype_policy,
            name=name,
            **weight_arguments(self, "kernel"),
            **arguments,
        )

    def build(self, input_shape):
        self.num_tokens(input_shape)
        for halves in zip(self.forward_layers, self.backward_layers, strict=True):
            for half in halves:
                half.build(input_shape)
            input_shape = (*input_shape[:-1], self.hidden_dim)

    def num_tokens(self, input_shape: Sequence[int | None]) -> Any:
        """Returns how many tokens a sequence `(batch, time, features)` gives: its time steps."""
        if len(input_shape) != 3 or input_shape[1] is None:
            raise InputError(
                "`GRUTokenizer` expects sequences of shape (batch, time, features) with a known "
                f"time. Received: input_shape={tuple(input_shape)}"
            )
        return input_shape[1]

    def call(self, x, training=None, padding_mask=None, mask=None, x_mask=None):
        valid = joint_mask(x, padding_mask=padding_mask, mask=mask, x_mask=x_mask)
        for forward, backward in zip(self.forward_layers, self.backward_layers, strict=True):
            halves = [half(x, training=training, mask=valid) for half in (forward, backward)]
            # The states of the second one come in the order in which it reads.
            x = ops.concatenate([halves[0], ops.flip(halves[1], axis=1)], axis=-1)
        if valid is None:
            return x
        # Keras repeats the last state there.
        return ops.where(valid[..., None], x, ops.zeros_like(x))

    def token_mask(self, padding_mask: Any) -> Any:
        """Returns which tokens are no padding: the mask of the steps, `(batch, time)`."""
        return padding_mask

    def compute_mask(self, x, previous_mask=None):
        """Returns the mask of the tokens: see `token_mask`."""
        return previous_mask

    def count_multiply_adds(self, tokens):
        """Returns the multiply-adds for one sample, an int: three gates in both directions."""
        state = self.hidden_dim // 2
        inputs = [half.cell.kernel.shape[0] for half in self.forward_layers]
        return sum(tokens * 2 * 3 * state * (width + state) for width in inputs)

    def compute_output_shape(self, input_shape):
        return (input_shape[0], self.num_tokens(input_shape), self.hidden_dim)

    def get_config(self):
        return {
            **super().get_config(),
            "hidden_dim": self.hidden_dim,
            "num_layers": self.num_layers,
            **weight_config(self, "kernel"),
        }
