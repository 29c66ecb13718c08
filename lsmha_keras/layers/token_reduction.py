"""Fewer tokens: which ones stay, and what becomes of the others."""

from __future__ import annotations

import math
from typing import Any

import keras
from keras import ops

from lsmha_keras.arguments import number_in, plain
from lsmha_keras.errors import InputError, nearest

WAYS = ("fuse", "merge", "skip")


@keras.saving.register_keras_serializable(package="lsmha_keras")
class TokenReduction(keras.layers.Layer):
    """Reduces tokens to those that receive most attention.

    Of `T` tokens `ceil(token_keep * T)` stay, in the order that they have. The others

    - `"fuse"`: become one token, the sum of them weighted by the attention that each receives;
    - `"merge"`: join the token that stays and is most similar by its cosine; tokens that were
      joined are replaced by their mean;
    - `"skip"`: are returned as they are, for `put_back`.

    Importance is the attention that a token receives from all heads and queries, as there is no
    class token.

    Args:
        token_keep: float in (0, 1].
        token_reduction: str, one of the above. Defaults to `"fuse"`.
        **kwargs: base layer arguments, such as `name` and `dtype`.

    Attributes:
        keep_in_training: float, the share that stays in training; a callback changes it.

    Call arguments:
        x: tokens, float tensor of shape `(batch, tokens, channels)`.
        scores: attention weights `(batch, heads, tokens, tokens)`.
        training: bool or `None`.
        padding_mask: optional boolean tensor of shape `(batch, tokens)`. Padding is the last to
            stay, and is joined with nothing.

    Returns:
        A pair: the tokens, and a dict with `"order"`, int32 `(batch, tokens)`, the places of those
        that stay and then of the others; the tokens `"skipped"`, for that way; and, given a mask,
        `"padding_mask"`, that of the tokens returned.

    Raises:
        ValueError: if an argument is out of range, or the number of tokens is not known.

    References:
        - [Liang et al., 2022](https://arxiv.org/abs/2202.07800), fusing (EViT)
        - [Bian et al., 2023](https://arxiv.org/abs/2306.04897), joining the most similar
        - [Ataiefard et al., 2024](https://arxiv.org/abs/2401.15293), skipping (SkipViT)
    """

    def __init__(self, token_keep: float, token_reduction: str = "fuse", **kwargs: Any) -> None:
        super().__init__(**kwargs)
        check_reduction(token_keep, token_reduction)
        self.token_keep = plain(token_keep)
        self.token_reduction = token_reduction
        self.keep_in_training = self.token_keep

    def call(self, x, scores, training=None, padding_mask=None):
        tokens = x.shape[1]
        kept = count_kept(self.keep_in_training if training else self.token_keep, tokens)
        masked = {} if padding_mask is None else {"padding_mask": padding_mask}
        if kept == tokens:
            order = ops.arange(tokens, dtype="int32")
            order = ops.broadcast_to(order, (ops.shape(x)[0], tokens))
            return x, {"order": order, **self._skipped(x[:, :0]), **masked}
        importance = attention_received(scores, padding_mask)
        order = order_by(importance, kept)
        places, others = order[:, :kept], order[:, kept:]
        stay, leave = take(x, places), take(x, others)
        masks = [take(mask, part) for mask in masked.values() for part in (places, others)]
        if self.token_reduction == "fuse":
            weights = ops.cast(take(importance, others), x.dtype)[:, None]  # (batch, 1, others)
            stay = ops.concatenate([stay, ops.matmul(weights, leave)], axis=1)
        elif self.token_reduction == "merge":
            stay = _merge(stay, leave, *masks)
        found = {"order": order, **self._skipped(leave)}
        if masks:
            fused = [ops.any(masks[1], axis=1, keepdims=True)]
            fused = fused if self.token_reduction == "fuse" else []
            found["padding_mask"] = ops.concatenate([masks[0], *fused], axis=1)
        return stay, found

    def _skipped(self, leave):
        return {"skipped": leave} if self.token_reduction == "skip" else {}

    def count_left(self, tokens: int | None) -> int:
        """Returns how many tokens there are afterwards at inference, the fused one counted."""
        kept = count_kept(self.token_keep, tokens)
        return kept + (self.token_reduction == "fuse" and kept < (tokens or 0))

    def count_multiply_adds(self, tokens: int, channels: int) -> int:
        """Returns the multiply-adds for one sample.

        Fusing weighs each of the others once. Merging compares each of them with every token that
        stays, and sums by a matrix of the same size.
        """
        kept = count_kept(self.token_keep, tokens)
        others = tokens - kept
        if self.token_reduction == "fuse":
            return others * channels
        return 2 * others * kept * channels if self.token_reduction == "merge" else 0

    def compute_output_spec(self, x, scores, training=None, padding_mask=None):
        batch, tokens, channels = x.shape
        left = self.count_left(tokens)
        found = {"order": keras.KerasTensor((batch, tokens), dtype="int32")}
        skipped = keras.KerasTensor((batch, tokens - left, channels), dtype=x.dtype)
        found.update(self._skipped(skipped))
        if padding_mask is not None:
            found["padding_mask"] = keras.KerasTensor((batch, left), dtype="bool")
        return keras.KerasTensor((batch, left, channels), dtype=x.dtype), found

    def get_config(self):
        return {
            **super().get_config(),
            "token_keep": self.token_keep,
            "token_reduction": self.token_reduction,
        }


def check_reduction(token_keep: Any, token_reduction: Any) -> None:
    """Refuses a share of tokens or a way of reduction that does not exist.

    Args:
        token_keep: float in (0, 1].
        token_reduction: str, one of `WAYS`.

    Raises:
        ValueError: if either is not.
    """
    number_in("(0, 1]", "token_keep", token_keep)
    if token_reduction not in WAYS:
        raise InputError(
            f"`token_reduction` must be one of {', '.join(WAYS)}{nearest(token_reduction, WAYS)}. "
            f"Received: token_reduction={token_reduction!r}"
        )


def count_kept(token_keep: float, tokens: int | None) -> int:
    """Returns how many tokens stay: `ceil(token_keep * tokens)`.

    Args:
        token_keep: float in (0, 1].
        tokens: int.

    Raises:
        ValueError: if the number of tokens is unknown.
    """
    if tokens is None:
        raise InputError(
            "Tokens can be reduced where their number is known before the model runs. "
            "Received: tokens of shape (batch, None, channels)"
        )
    # Without the error that 0.7 * 10 has in binary, which would keep eight of ten.
    return math.ceil(round(token_keep * tokens, 6))


def attention_received(scores: Any, padding_mask: Any = None) -> Any:
    """Returns the mean attention that each token receives, from all heads and queries.

    Args:
        scores: attention weights `(batch, heads, tokens, tokens)`.
        padding_mask: boolean tensor `(batch, tokens)` or `None`; padded queries do not count.

    Returns:
        A float32 tensor `(batch, tokens)`; rows sum to 1, and padded tokens have 0.
    """
    by_query = ops.mean(ops.cast(scores, "float32"), axis=1)  # (batch, queries, keys)
    if padding_mask is None:
        return ops.mean(by_query, axis=1)
    valid = ops.cast(padding_mask, "float32")
    total = ops.sum(by_query * valid[:, :, None], axis=1) * valid
    return total / ops.maximum(ops.sum(valid, axis=1, keepdims=True), 1)


def heard_scores(scores: Any, *factors: Any) -> Any:
    """Excludes heads that are masked or left out from the choice of tokens.

    Args:
        scores: attention weights `(batch, heads, tokens, tokens)`.
        *factors: what head outputs are multiplied by, `(heads,)` or `(batch, heads)`, or `None`.

    Returns:
        A tensor like `scores`, whose mean over heads is that over the heads without a factor of 0.
    """
    for factor in factors:
        if factor is not None:
            heard = ops.cast(ops.not_equal(ops.convert_to_tensor(factor), 0), scores.dtype)
            share = ops.mean(heard, axis=-1, keepdims=True)
            scores = scores * (heard / ops.maximum(share, 1e-3))[..., None, None]
    return scores


def order_by(importance: Any, kept: int) -> Any:
    """Orders tokens: first those that stay, then the others, both as they lie in the input.

    Args:
        importance: float tensor `(batch, tokens)`; the largest values stay.
        kept: int, how many.

    Returns:
        An int32 tensor `(batch, tokens)` of places. It has no gradient.
    """
    tokens = importance.shape[1]
    _, chosen = ops.top_k(ops.stop_gradient(importance), kept)
    marks = ops.sum(ops.one_hot(chosen, tokens, dtype="int32"), axis=1)
    # All keys differ, so that every backend sorts them alike.
    keys = (1 - marks) * tokens + ops.arange(tokens, dtype="int32")
    return ops.cast(ops.argsort(keys, axis=1), "int32")


def take(x: Any, places: Any) -> Any:
    """Takes tokens `(batch, tokens, channels)`, or a mask `(batch, tokens)`, by their places."""
    if len(x.shape) == 2:
        return ops.take_along_axis(x, places, axis=1)
    return ops.take_along_axis(x, places[..., None], axis=1)


def put_back(kept: Any, skipped: Any, order: Any) -> Any:
    """Joins tokens that went different ways, in the places that they had.

    Args:
        kept: tensor `(batch, kept, channels)`.
        skipped: tensor `(batch, skipped, channels)`.
        order: what `order_by` returned.

    Returns:
        A tensor `(batch, kept + skipped, channels)`.
    """
    joined = ops.concatenate([kept, ops.cast(skipped, kept.dtype)], axis=1)
    return take(joined, ops.argsort(order, axis=1))


def _merge(stay, leave, stay_mask=None, leave_mask=None):
    """Replaces each token by the mean of itself and those that are most similar to it."""
    wide = ops.cast(stay, "float32"), ops.cast(leave, "float32")
    stay_unit, leave_unit = (ops.normalize(part, axis=-1, order=2) for part in wide)
    cosines = ops.matmul(leave_unit, ops.swapaxes(stay_unit, 1, 2))  # (batch, leave, stay)
    if stay_mask is not None:
        cosines = ops.where(stay_mask[:, None, :], cosines, -2.0)
    joins = ops.one_hot(ops.argmax(cosines, axis=-1), stay.shape[1], dtype="float32")
    if leave_mask is not None:
        joins = joins * ops.cast(leave_mask, "float32")[..., None]
    total = wide[0] + ops.matmul(ops.swapaxes(joins, 1, 2), wide[1])
    counts = 1 + ops.sum(joins, axis=1)[..., None]
    return ops.cast(total / counts, stay.dtype)
