"""HiLo attention: windows for high frequencies, pooled tokens for low ones."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
from keras import ops

from lsmha_keras.arguments import grid, plain, positive_int
from lsmha_keras.errors import InputError
from lsmha_keras.layers.attention_core import project_heads, split_heads
from lsmha_keras.layers.large_scale_multi_head_attention import LargeScaleMultiHeadAttention


@keras.saving.register_keras_serializable(package="lsmha_keras")
class HiLoAttention(LargeScaleMultiHeadAttention):
    """Multi-head attention whose heads see either details nearby or averages everywhere.

    The first heads attend within windows of `window x window` tokens. The last
    `floor(low_fraction * num_heads)` attend, from every token, to keys and values of the averages
    of such windows. Both kinds go through the many-head core, with few scores. One projection
    follows for all heads, where the paper has two, so that the sum over heads is the output.

    Per image of `T` tokens of width `C`, with `I_h` and `I_l` the widths of the two kinds of heads
    together, `I` their sum and `s` the window: parameters `4 C I + C`, multiply-adds
    `T (3 C I_h + C I_l + C I) + 2 T C I_l / s^2 + 2 T s^2 I_h + 2 T^2 I_l / s^2`, scores
    `H_h T s^2 + H_l T^2 / s^2`.

    Args:
        num_heads: int, number of heads.
        window: int, side of a window, which divides both sides of the grid. Defaults to `2`.
        low_fraction: float in [0, 1], share of the heads that see averages. Defaults to `0.5`.
        grid_shape: `(grid_height, grid_width)` of the tokens.
        **kwargs: arguments of `LargeScaleMultiHeadAttention`.

    Raises:
        ValueError: if the window does not divide the grid, `low_fraction` is out of range, or there
            is a padding mask.

    References:
        - [Pan et al., 2022](https://arxiv.org/abs/2205.13213)
    """

    def __init__(
        self,
        num_heads: int,
        window: int = 2,
        low_fraction: float = 0.5,
        grid_shape: Sequence[int] | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(num_heads, **kwargs)
        if grid_shape is None:
            raise InputError("Windows need the grid of the tokens. Received: grid_shape=None")
        self.window = positive_int("window", window)
        self.low_fraction, self.grid_shape = plain(low_fraction), grid(grid_shape)
        if any(side % self.window for side in self.grid_shape):
            raise InputError(
                f"`window` must divide the sides of the grid {self.grid_shape}. "
                f"Received: window={window}"
            )
        if not 0 <= self.low_fraction <= 1:
            raise InputError(
                f"`low_fraction` must be in [0, 1]. Received: low_fraction={low_fraction}"
            )
        self._low = int(self.low_fraction * self.num_heads)
        self._high = self.num_heads - self._low

    def build_heads(self, input_shape):
        height, width = self.grid_shape
        if input_shape[1] not in (None, height * width):
            raise InputError(
                f"The tokens of a grid {self.grid_shape} are {height * width}. "
                f"Received: input_shape={tuple(input_shape)}"
            )
        if self._high:
            self.high_qkv = self.make_dense("qkv", 3 * self._high * self.width, input_shape)
        if self._low:
            self.query = self.make_dense("query", self._low * self.width, input_shape)
            self.key_value = self.make_dense("key_value", 2 * self._low * self.width, input_shape)

    def attend(self, x, padding_mask, training, return_attention_scores):
        if padding_mask is not None:
            raise InputError(
                "HiLo's windows cover a whole grid: it takes no mask. "
                f"Received: padding_mask of shape {tuple(padding_mask.shape)}"
            )
        parts = []
        if self._high:
            parts.append(self._attend_high(x, training, return_attention_scores))
        if self._low:
            parts.append(self._attend_low(x, training, return_attention_scores))
        heads, scores = zip(*parts, strict=True)
        scores = ops.concatenate(scores, axis=1) if return_attention_scores else None
        return ops.concatenate(heads, axis=1), scores

    def _attend_high(self, x, training, return_attention_scores):
        """Attends within windows, each of which is a separate image to the core."""
        rows, columns = (n // self.window for n in self.grid_shape)
        side = self.window
        x = ops.reshape(x, (-1, rows, side, columns, side, x.shape[-1]))
        x = ops.reshape(ops.transpose(x, (0, 1, 3, 2, 4, 5)), (-1, side * side, x.shape[-1]))
        heads, scores = self.attend_core(
            *project_heads(self.high_qkv, x, self._high), None, training, return_attention_scores
        )
        # (batch * windows, heads, tokens of a window, head_dim)
        heads = ops.reshape(heads, (-1, rows, columns, self._high, side, side, self.width))
        heads = ops.transpose(heads, (0, 3, 1, 4, 2, 5, 6))
        heads = ops.reshape(heads, (-1, self._high, rows * side * columns * side, self.width))
        return heads, self._spread_windows(scores) if return_attention_scores else None

    def _spread_windows(self, scores):
        """Writes weights within windows as weights between all tokens, zero elsewhere."""
        rows, columns = (n // self.window for n in self.grid_shape)
        side = self.window
        windows, inside = rows * columns, side * side
        scores = ops.reshape(scores, (-1, windows, self._high, inside, 1, inside))
        eye = ops.reshape(ops.eye(windows, dtype=scores.dtype), (windows, 1, 1, windows, 1))
        scores = ops.transpose(scores * eye, (0, 2, 1, 3, 4, 5))
        tokens = windows * inside
        scores = ops.reshape(scores, (-1, self._high, tokens, tokens))
        place = np.arange(tokens).reshape(rows, columns, side, side)
        place = place.transpose(0, 2, 1, 3).reshape(-1)  # of each token, in the order of windows
        return ops.take(ops.take(scores, place, axis=2), place, axis=3)

    def _attend_low(self, x, training, return_attention_scores):
        """Attends from all tokens to the averages of windows."""
        rows, columns = (n // self.window for n in self.grid_shape)
        side = self.window
        pooled = ops.reshape(x, (-1, rows, side, columns, side, x.shape[-1]))
        pooled = ops.reshape(ops.mean(pooled, axis=(2, 4)), (-1, rows * columns, x.shape[-1]))
        query = split_heads(self.query(x), self._low)
        key, value = ops.split(split_heads(self.key_value(pooled), 2 * self._low), 2, axis=1)
        heads, scores = self.attend_core(query, key, value, None, training, return_attention_scores)
        if return_attention_scores:  # The tokens of a window share its weight.
            shape = (-1, self._low, rows * side * columns * side, rows, columns)
            scores = ops.reshape(scores, shape) / (side * side)
            scores = ops.repeat(ops.repeat(scores, side, axis=3), side, axis=4)
            scores = ops.reshape(scores, (*shape[:3], rows * side * columns * side))
        return heads, scores

    def count_multiply_adds(self, tokens):
        inner_dim, hidden_dim = self.projection.kernel.shape
        high, low, area = self._high * self.width, self._low * self.width, self.window**2
        kernels = hidden_dim * (3 * high + low + inner_dim)
        pooled = 2 * hidden_dim * low + 2 * tokens * low
        return tokens * (kernels + 2 * area * high) + tokens // area * pooled

    def multi_head_weights(self):
        parts = [self.read_dense(self.high_qkv, 3)] if self._high else []
        if self._low:
            parts.append([*self.read_dense(self.query, 1), *self.read_dense(self.key_value, 2)])
        return [np.concatenate(part, axis=1) for part in zip(*parts, strict=True)], self._is_plain()

    def take_multi_head_weights(self, weights):
        if self._high:
            self.write_dense(self.high_qkv, [part[:, : self._high] for part in weights])
        if self._low:
            query, *key_value = (part[:, self._high :] for part in weights)
            self.write_dense(self.query, [query])
            self.write_dense(self.key_value, key_value)
        return self._is_plain()

    def _is_plain(self):
        whole = self.grid_shape == (self.window, self.window)
        return (self.window == 1 or not self._low) and (whole or not self._high)

    def pruned_options(self, keep):
        low = sum(head >= self._high for head in keep)
        # The half keeps rounding from losing a head; shares of 0 and 1 have none to lose.
        return {"low_fraction": min(1.0, (low + 0.5) / len(keep)) if low else 0.0}

    def take_head_weights(self, layer, keep):
        high = [head for head in keep if head < layer._high]
        low = [head - layer._high for head in keep if head >= layer._high]
        if high:
            self.take_dense("high_qkv", layer, high, 3)
        if low:
            self.take_dense("query", layer, low, 1)
            self.take_dense("key_value", layer, low, 2)

    def get_config(self):
        return {
            **super().get_config(),
            "window": self.window,
            "low_fraction": self.low_fraction,
            "grid_shape": self.grid_shape,
        }
