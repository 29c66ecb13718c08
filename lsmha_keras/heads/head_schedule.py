"""Prunes and grows heads while a model trains, and tells how steady their ranking is."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import keras
import numpy as np
from keras import ops

from lsmha_keras.arguments import plain, positive_int
from lsmha_keras.errors import InputError
from lsmha_keras.layers.transformer_block import TransformerBlock
from lsmha_keras.shp.head_scores import check_methods, head_scores
from lsmha_keras.shp.statistics import spearman
from lsmha_keras.surgery.prune_heads import choose_heads, prunable_blocks, prune_heads
from lsmha_keras.training.checkpoint import ema_weights
from lsmha_keras.types import Dataset


class HeadSchedule(keras.callbacks.Callback):
    """Puts heads to sleep, and wakes them, at the ends of epochs of `fit`.

    A head that sleeps has values and outgoing weights of zero. It gives zero and gets no gradient,
    so it stays asleep; at the end of each epoch what an optimizer did to it nevertheless is undone.
    The shapes of weights do not change, so nothing is compiled anew. `pruned` makes the smaller
    model.

    The lowest of all heads fall asleep first, as `prune_heads` removes them. Those that fell asleep
    last wake first: their values are drawn as at first, their outgoing weights are zero, so the
    model predicts the same and they learn from there. To end with more heads than a model has, give
    it more with `grow(model, num_heads=...)` first.

    The logs get, after each epoch:

    - `heads/awake`: number of heads that are awake;
    - `heads/rank_correlation`: Spearman's correlation, in -1 .. 1, of the scores with those of the
      measurement before, over the heads that were awake both times: near 1, the ranking is steady
      and heads can go. NaN at the first measurement and in epochs without one.

    Put callbacks that read them, such as `CSVLogger`, after this one in the list.

    Args:
        data: labelled images to score heads on; see `head_scores`. Not the pipeline that `fit`
            reads, and not images that tell what was lost.
        schedule: dict from an epoch, counted from 1, to the share of all heads, in (0, 1], that is
            awake from its end on. `{}` only measures.
        by: str, a score of `head_scores`. Defaults to `"mask_gradient"`.
        every: int, epochs between measurements; epochs of the schedule have one anyway. Defaults to
            `1`.
        protect: int, heads that stay awake in each block at least. Defaults to `1`.
        **score_options: further arguments of `head_scores`, such as `max_images`.

    Attributes:
        asleep: dict from block to the list of its heads that sleep, ascending.

    Raises:
        ValueError: if the schedule or the score is no such thing; at the start of training, if the
            model has no heads or other than plain attention, is quantised, or `protect` forbids a
            share.

    Example:

    ```python
    heads = lsmha_keras.HeadSchedule((images, labels), {10: 0.75, 20: 0.5})
    model.fit(images, labels, epochs=30, callbacks=[heads])
    smaller = heads.pruned()
    ```

    References:
        - [Michel et al., 2019](https://arxiv.org/abs/1905.10650), when heads can be told apart
        - [Evci et al., 2020](https://arxiv.org/abs/1911.11134), dropping and growing in training
    """

    def __init__(
        self,
        data: Dataset,
        schedule: Mapping[int, float],
        by: str = "mask_gradient",
        every: int = 1,
        protect: int = 1,
        **score_options: Any,
    ) -> None:
        super().__init__()
        self.data, self.schedule = data, _check_schedule(schedule)
        (self.by,) = check_methods([by])
        self.every, self.protect = positive_int("every", every), positive_int("protect", protect)
        self.score_options = {"verbose": 0, **score_options}
        self._order: list[tuple[int, int]] = []  # of heads that sleep, the last to fall asleep last
        self._scores: dict[int, np.ndarray] | None = None

    @property
    def asleep(self) -> dict[int, list[int]]:
        """The heads that sleep."""
        found: dict[int, list[int]] = {}
        for block, head in sorted(self._order):
            found.setdefault(block, []).append(head)
        return found

    def pruned(self) -> Any:
        """Makes the smaller model, without the heads that sleep; it predicts the same.

        Returns:
            A new `CCTImageClassifier`.
        """
        return prune_heads(self.model, remove=self.asleep)

    def on_train_begin(self, logs: dict[str, Any] | None = None) -> None:
        """Checks the model, and finds the heads that sleep already."""
        blocks = prunable_blocks(self.model)
        for index, block in blocks.items():
            if block.attention_kind != "multi_head":
                raise InputError(
                    "Heads of plain attention can be put to sleep; `lsmha_keras.convert_attention("
                    "model, 'multi_head')` comes first, or `lsmha_keras.prune_heads` after "
                    f"training. Received: attention={block.attention_kind!r} in block {index}"
                )
        for share in self.schedule.values():
            choose_heads(self.model, 1 - share, "random", self.protect)
        self._blocks, self._scores = blocks, None
        sleeping = [place for index in blocks for place in _find_asleep(index, blocks[index])]
        known = [place for place in self._order if place in sleeping]
        self._order = [*(place for place in sleeping if place not in known), *known]

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Measures and changes heads, if this epoch is due, and adds the figures to `logs`."""
        for block, head in self._order:
            self._write(block, head)
        correlation = math.nan
        if (epoch + 1) % self.every == 0 or epoch + 1 in self.schedule:
            with ema_weights(self.model):
                table = head_scores(self.model, self.data, [self.by], **self.score_options)
            scores = table.importance(self.by)
            for block, head in self._order:
                scores[block][head] = -np.inf
            correlation, self._scores = self._correlation(scores), scores
            if epoch + 1 in self.schedule:
                self._change(scores, self.schedule[epoch + 1])
        if logs is not None:
            logs["heads/awake"] = self._total() - len(self._order)
            logs["heads/rank_correlation"] = correlation

    def _total(self):
        return sum(block.num_heads for block in self._blocks.values())

    def _correlation(self, scores):
        if self._scores is None:
            return math.nan
        new, old = (np.concatenate(list(s.values())) for s in (scores, self._scores))
        awake = (new > -np.inf) & (old > -np.inf)
        return spearman(new[awake], old[awake])

    def _change(self, scores, share):
        """Puts the lowest heads to sleep, or wakes those that fell asleep last."""
        wanted = int((1 - share) * self._total() + 1e-6)
        while len(self._order) > wanted:
            block, head = self._order.pop()
            initializer = self._blocks[block].attention.qkv.kernel_initializer
            self._write(block, head, initializer)
        if len(self._order) < wanted:
            # Those that sleep have the lowest scores of all, and are found again.
            found = choose_heads(self.model, wanted / self._total(), scores, self.protect)
            new = [(b, h) for b, heads in found.items() for h in heads if (b, h) not in self._order]
            for block, head in sorted(new, key=lambda place: scores[place[0]][place[1]]):
                self._order.append((block, head))
                self._write(block, head)

    def _write(self, block, head, initializer=None):
        """Draws a head's values, or sets them to zero; its outgoing weights become zero."""
        attention = self._blocks[block].attention
        heads, width = attention.num_heads, attention.width
        own = slice(head * width, (head + 1) * width)
        third = slice((2 * heads + head) * width, (2 * heads + head + 1) * width)
        qkv, projection = attention.qkv, attention.projection
        drawn = 0.0
        if initializer is not None:
            drawn = ops.convert_to_numpy(initializer(qkv.kernel.shape, "float32"))[:, third]
        parts = [(qkv.kernel, (slice(None), third), drawn), (projection.kernel, (own,), 0.0)]
        if qkv.use_bias:
            parts.append((qkv.bias, (third,), 0.0))
        for weight, part, values in parts:
            _assign(weight, part, values)
            self._forget(weight, part)

    def _forget(self, weight, part):
        """Sets what the optimizer keeps of a part of a weight to zero: no momentum moves it on."""
        prefix = f"/{weight.path.replace('/', '_')}_"
        for kept in getattr(self.model.optimizer, "variables", ()):
            if prefix in kept.path and tuple(kept.shape) == tuple(weight.shape):
                average = kept.path.endswith("_average")  # the weight's own, not a gradient's
                _assign(kept, part, _read(weight)[part] if average else 0.0)


def _check_schedule(schedule):
    if not isinstance(schedule, Mapping):
        raise InputError(
            "`schedule` must be a dict from epochs to shares of the heads, such as {10: 0.5}. "
            f"Received: schedule={schedule!r}"
        )
    checked = {}
    for epoch, share in schedule.items():
        epoch, share = plain(epoch), plain(share)
        number = isinstance(share, (int, float)) and not isinstance(share, bool)
        if not number or not 0 < share <= 1:
            raise InputError(
                "Shares of the heads that are awake must be above 0 and at most 1. "
                f"Received: {share!r} in schedule={schedule!r}"
            )
        checked[positive_int("epoch of the schedule", epoch)] = share
    return checked


def _find_asleep(index, block: TransformerBlock):
    """Lists the heads of a block whose values and outgoing weights are zero."""
    attention = block.attention
    values = attention.read_dense(attention.qkv, 3)[2]  # (channels, heads, head_dim)
    rows = _read(attention.projection.kernel).reshape(attention.num_heads, -1)
    idle = ~np.any(values, axis=(0, 2)) & ~np.any(rows, axis=1)
    return [(index, int(head)) for head in np.flatnonzero(idle)]


def _read(weight):
    return np.array(ops.convert_to_numpy(weight))


def _assign(weight, part, values):
    whole = _read(weight)
    whole[part] = values
    weight.assign(whole)
