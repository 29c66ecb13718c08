"""Attention whose heads see windows of different sizes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
from keras import ops

from lsmha_keras.arguments import grid, plain
from lsmha_keras.attention.explicit import explicit_attention
from lsmha_keras.errors import InputError
from lsmha_keras.layers.attention_core import open_empty_masks, project_heads
from lsmha_keras.layers.large_scale_multi_head_attention import LargeScaleMultiHeadAttention


@keras.saving.register_keras_serializable(package="lsmha_keras")
class WindowedHeads(LargeScaleMultiHeadAttention):
    """Multi-head attention in which each head sees a window of the grid.

    `"band"`: head `h` attends to tokens at most `w_h` rows and `w_h` columns away; 0 is the token
    itself. `"chunk"`: the grid is cut into chunks of `w_h x w_h` tokens, and tokens attend within
    theirs. `None` sees everything. Multi-scale attention, long-short attention and local blocks are
    special cases.

    All scores are computed and then masked: parameters and multiply-adds are those of plain
    attention. Each head has its own mask, so the many-head core cannot be used. The kind `hilo`
    computes fewer scores.

    Args:
        num_heads: int, number of heads.
        windows: list of ints and `None`, one entry for each head, or `None` for half of the heads
            with windows of 1, or chunks of 2, and half without. Defaults to `None`.
        shape: `"band"` or `"chunk"`. Defaults to `"band"`.
        grid_shape: `(grid_height, grid_width)` of the tokens.
        **kwargs: arguments of `LargeScaleMultiHeadAttention`.

    Raises:
        ValueError: if `windows` does not fit the heads or holds negative numbers, empty chunks or
            more than the grid, or `shape` is unknown.

    References:
        - [Guo et al., 2019](https://arxiv.org/abs/1912.00544), several scales
        - [Zhu et al., 2021](https://arxiv.org/abs/2107.02192), long and short range
    """

    def __init__(
        self,
        num_heads: int,
        windows: Any = None,
        shape: str = "band",
        grid_shape: Sequence[int] | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(num_heads, **kwargs)
        if shape not in ("band", "chunk"):
            raise InputError(f'`shape` must be "band" or "chunk". Received: shape={shape!r}')
        if grid_shape is None:
            raise InputError("Windows need the grid of the tokens. Received: grid_shape=None")
        self.windows, self.shape, self.grid_shape = plain(windows), shape, grid(grid_shape)
        sizes = self.windows
        if sizes is None:
            local = self.num_heads // 2
            sizes = [1 if shape == "band" else 2] * local + [None] * (self.num_heads - local)
        smallest, largest = (0 if shape == "band" else 1), max(self.grid_shape)
        if (
            not isinstance(sizes, (list, tuple))
            or len(sizes) != self.num_heads
            or any(
                w is not None and (not isinstance(w, int) or not smallest <= w <= largest)
                for w in sizes
            )
        ):
            raise InputError(
                f"`windows` must be a list of {num_heads} entries, one for each head: None or an "
                f"int from {smallest} to {largest}, the side of the grid. "
                f"Received: windows={windows}"
            )
        self._sizes = list(sizes)
        self._allowed = np.stack([self._make_mask(size) for size in sizes])

    def _make_mask(self, size):
        """Which tokens (columns) a token (row) may see, `(tokens, tokens)`."""
        height, width = self.grid_shape
        places = np.stack(np.divmod(np.arange(height * width), width), axis=-1)
        if size is None:
            return np.ones((len(places), len(places)), bool)
        if self.shape == "chunk":
            return np.all(places[:, None] // size == places[None] // size, axis=-1)
        return np.abs(places[:, None] - places[None]).max(-1) <= size

    def attend(self, x, padding_mask, training, return_attention_scores):
        query, key, value = project_heads(self.qkv, x, self.num_heads)
        allowed = ops.convert_to_tensor(self._allowed[None])
        if padding_mask is not None:
            query, padding_mask = open_empty_masks(query, padding_mask)
            allowed = ops.logical_and(allowed, padding_mask[:, None, None, :])
            # A padded token that has only padding around it sees itself.
            alone = ops.logical_not(ops.any(allowed, axis=-1, keepdims=True))
            eye = ops.convert_to_tensor(np.eye(self._allowed.shape[-1], dtype=bool))
            allowed = ops.logical_or(allowed, ops.logical_and(alone, eye))
        heads, weights = explicit_attention(
            query,
            key,
            value,
            **self.dropout_options(training),
            change_scores=lambda scores: ops.where(allowed, scores, -np.inf),
        )
        return heads, weights if return_attention_scores else None

    def multi_head_weights(self):
        return super().multi_head_weights()[0], bool(self._allowed.all())

    def take_multi_head_weights(self, weights):
        super().take_multi_head_weights(weights)
        return bool(self._allowed.all())

    def pruned_options(self, keep):
        return {"windows": [self._sizes[head] for head in keep]}

    def get_config(self):
        return {
            **super().get_config(),
            "windows": self.windows,
            "shape": self.shape,
            "grid_shape": self.grid_shape,
        }
