"""Position embeddings on a grid of tokens."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
from keras import ops

from lsmha_keras.arguments import grid, plain
from lsmha_keras.errors import InputError
from lsmha_keras.layers.weight_arguments import (
    initial_values,
    set_weight_arguments,
    weight_config,
)
from lsmha_keras.types import Constraint, Initializer, Regularizer

KINDS = ("learnable", "sine", "none")


@keras.saving.register_keras_serializable(package="lsmha_keras")
class PositionEmbedding(keras.layers.Layer):
    """Adds a position embedding to tokens that lie row by row on a grid.

    Saved weights remember their grid: loaded into a layer of another grid, a learnable embedding is
    resized bilinearly, so a model trained at one image size can be used at another.

    Args:
        grid_shape: pair of ints, `(grid_height, grid_width)`.
        kind: `"learnable"`, `"sine"` (not trained: for token index `p` and channel `i` of `C`, the
            sine for even `i` and the cosine for odd `i` of `p / 10000 ** (2 * (i // 2) / C)`), or
            `"none"`. Defaults to `"learnable"`.
        add: bool, whether the embedding is added to the tokens, or returned alone, for what adds it
            later. Defaults to `True`.
        embeddings_initializer: initializer of a learnable embedding. Defaults to a truncated normal
            of standard deviation 0.2.
        embeddings_regularizer: regularizer of a learnable embedding.
        embeddings_constraint: constraint on it.
        **kwargs: base layer arguments, such as `name`, `dtype` and `activity_regularizer`.

    Call arguments:
        x: tokens, float tensor of shape `(batch, grid_height * grid_width, channels)`.

    Returns:
        A tensor of the shape of `x`, or without `add` of shape `(1, tokens, channels)`, in the
        compute dtype.

    Raises:
        ValueError: if `kind` is unknown, there is no embedding to return, or the number of tokens
            does not fit the grid.

    Example:

    ```python
    layer = lsmha_keras.PositionEmbedding(grid_shape=(8, 8))
    layer(np.zeros((2, 64, 128), "float32"))
    ```

    References:
        - [Hassani et al., 2021](https://arxiv.org/abs/2104.05704)
        - [Vaswani et al., 2017](https://arxiv.org/abs/1706.03762), section 3.5, for `"sine"`
    """

    def __init__(
        self,
        grid_shape: Sequence[int],
        kind: str = "learnable",
        add: bool = True,
        embeddings_initializer: Initializer = None,
        embeddings_regularizer: Regularizer = None,
        embeddings_constraint: Constraint = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        if kind not in KINDS:
            raise InputError(f"`kind` must be one of {KINDS}. Received: kind={kind!r}")
        self.supports_masking = True
        self.grid_shape = grid(grid_shape)
        self.kind = kind
        self.add = plain(add)
        if kind == "none" and not self.add:
            raise InputError(
                "Without an embedding there is nothing to return: take another `kind`. "
                f"Received: kind={kind!r}, add={add}"
            )
        # The reference's, ten times that of its kernels.
        set_weight_arguments(self, default_stddev=0.2, **locals())

    def build(self, input_shape):
        num_tokens = self.grid_shape[0] * self.grid_shape[1]
        if len(input_shape) != 3 or input_shape[1] != num_tokens:
            raise InputError(
                f"`PositionEmbedding` of grid {self.grid_shape} expects tokens of shape (batch, "
                f"{num_tokens}, channels). Received: input_shape={input_shape}"
            )
        if self.kind == "learnable":
            self.embedding = self.add_weight(
                name="embedding",
                shape=(1, *input_shape[1:]),
                initializer=initial_values(self.embeddings_initializer),
                regularizer=self.embeddings_regularizer,
                constraint=self.embeddings_constraint,
            )
        elif self.kind == "sine":
            self.embedding = sine_embedding(*input_shape[1:])[None]

    def call(self, x):
        if self.kind == "none":
            return x
        embedding = ops.cast(self.embedding, self.compute_dtype)
        return x + embedding if self.add else embedding

    def save_own_variables(self, store):
        super().save_own_variables(store)
        if self.kind == "learnable":
            # The weight's own shape does not tell a grid of 4 x 4 from one of 8 x 2.
            store["grid_shape"] = np.array(self.grid_shape)

    def load_own_variables(self, store):
        if self.kind != "learnable":
            return
        embedding = np.asarray(store["0"])
        grid_shape = tuple(int(side) for side in store["grid_shape"])
        self.embedding.assign(resize_position_embedding(embedding, grid_shape, self.grid_shape))

    def compute_output_shape(self, input_shape):
        return tuple(input_shape) if self.add else (1, *input_shape[1:])

    def get_config(self):
        return {
            **super().get_config(),
            "grid_shape": self.grid_shape,
            "kind": self.kind,
            "add": self.add,
            **weight_config(self, "embeddings"),
        }


def sine_embedding(num_tokens, hidden_dim):
    """Returns the sinusoidal embedding, float32 of shape `(num_tokens, hidden_dim)`."""
    # Channels 2i and 2i + 1 are sine and cosine of one angle (Vaswani et al., 2017). Tokens count
    # row by row: the reference's embedding knows nothing of the grid's columns either.
    channel = np.arange(hidden_dim)
    angle = np.arange(num_tokens)[:, None] / 10000.0 ** (2 * (channel // 2) / hidden_dim)
    return np.where(channel % 2 == 0, np.sin(angle), np.cos(angle)).astype("float32")


def resize_position_embedding(embedding, grid_shape, new_grid_shape):
    """Resizes a position embedding to another grid, bilinearly and without antialiasing.

    Args:
        embedding: array of shape `(1, grid_height * grid_width, channels)`.
        grid_shape: pair of ints, the grid of `embedding`.
        new_grid_shape: pair of ints, the grid wanted.

    Returns:
        A NumPy array of shape `(1, new_height * new_width, channels)`.

    Raises:
        ValueError: if `embedding` does not have `grid_height * grid_width` tokens.
    """
    embedding = np.asarray(embedding)
    tokens, channels = embedding.shape[1:]
    if tokens != grid_shape[0] * grid_shape[1]:
        raise InputError(
            f"A position embedding of {tokens} tokens does not lie on a {grid_shape[0]}x"
            f"{grid_shape[1]} grid. Received: grid_shape={grid_shape}"
        )
    if tuple(grid_shape) == tuple(new_grid_shape):
        return embedding
    grid = embedding.reshape(1, *grid_shape, channels).astype("float32")
    resized = ops.image.resize(
        grid, new_grid_shape, interpolation="bilinear", data_format="channels_last"
    )
    return ops.convert_to_numpy(resized).reshape(1, -1, channels)
