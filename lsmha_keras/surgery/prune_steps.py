"""Prunes heads step by step: score, remove, fine-tune, score again."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Callable, Iterator
from typing import Any

from lsmha_keras.arguments import positive_int
from lsmha_keras.shp.head_scores import check_methods
from lsmha_keras.surgery.prune_heads import choose_heads, prunable_blocks, prune_heads


@dataclasses.dataclass(frozen=True)
class PruningStep:
    """The model after one step of pruning.

    Attributes:
        fraction: float, share of the original model's heads that are removed.
        model: `CCTImageClassifier`, fine-tuned if a `tune` function was given.
        untuned: the model before fine-tuning, or `model` itself.
        heads: dict from block to the remaining heads, by their indices in the original model.
        number: int, of the step; 0 is the original model.
    """

    fraction: float
    model: Any
    untuned: Any
    heads: dict[int, list[int]]
    number: int = 0


def prune_steps(
    model: Any,
    fraction: float,
    by: str = "shp",
    steps: int = 1,
    tune: Callable[[Any], Any] | None = None,
    protect: int = 1,
    normalise: bool = False,
    data: Any = None,
    after: PruningStep | None = None,
    **score_options: Any,
) -> Iterator[PruningStep]:
    """Removes heads in equal steps, and scores the remaining ones again before each.

    A redundant head becomes important once its duplicate is removed.

    Args:
        model: `CCTImageClassifier`; it is not changed.
        fraction: float in [0, 1), share of its heads to remove in total.
        by: str, a score of `head_scores`, which is measured on `data` before each step.
        steps: int. Defaults to `1`.
        tune: function that fine-tunes the model it is given, called after each step, or `None`.
        protect: int, least number of heads to keep in each block.
        normalise: bool; see `prune_heads`.
        data: labelled images to score heads on.
        after: a `PruningStep` that is done, to go on from; it and those before it are not yielded.
        **score_options: further arguments of `head_scores`.

    Yields:
        A `PruningStep` for the original model, then one per step.

    Raises:
        ValueError: as `prune_heads`; where possible, before anything is measured.

    Example:

    ```python
    model = lsmha_keras.CCTImageClassifier.from_preset("lsmha-small")
    for step in lsmha_keras.prune_steps(model, 0.5, by="random", steps=2):
        print(step.fraction, step.model.count_params())
    ```
    """
    steps, blocks = positive_int("steps", steps), prunable_blocks(model)
    check_methods([by])
    # Any scores tell whether that many heads can be removed at all.
    choose_heads(model, fraction, "random", protect)
    heads = {index: list(range(block.num_heads)) for index, block in blocks.items()}

    def choose(model, share):
        return choose_heads(model, share, by, protect, normalise, data, **score_options)

    done = PruningStep(0.0, model, model, heads) if after is None else after
    total = sum(map(len, heads.values()))
    following = _steps(done, fraction, steps, total, choose, tune)
    return following if after else itertools.chain([done], following)


def _steps(done, fraction, steps, total, choose, tune):
    model, heads = done.model, done.heads
    left = sum(map(len, heads.values()))
    for step in range(done.number + 1, steps + 1):
        gone = int(fraction * step / steps * total + 1e-6)
        removed = choose(model, (gone - (total - left)) / left)
        heads = {
            index: [h for place, h in enumerate(names) if place not in removed.get(index, [])]
            for index, names in heads.items()
        }
        left = sum(map(len, heads.values()))
        untuned = prune_heads(model, remove=removed)
        model = untuned
        if tune:
            model = prune_heads(untuned, remove={})  # a copy to train
            tune(model)
        yield PruningStep(1 - left / total, model, untuned, heads, step)
