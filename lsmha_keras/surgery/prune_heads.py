"""Removes heads from a trained model, with the same outputs as masking them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from lsmha_keras.arguments import number_in, plain, positive_int
from lsmha_keras.attention.registry import find_attention
from lsmha_keras.errors import InputError
from lsmha_keras.layers.transformer_block import TransformerBlock
from lsmha_keras.layers.weight_arguments import built_with_weights
from lsmha_keras.models.blocks import count_heads_blocks, joined, per_block
from lsmha_keras.models.cct_base_backbone import CCTBaseBackbone
from lsmha_keras.models.copy_weights import check_full_precision, copy_weights
from lsmha_keras.shp.head_score_table import HeadScoreTable, weights_digest
from lsmha_keras.shp.head_scores import head_scores


def prune_heads(
    model: Any,
    keep: Mapping[int, Sequence[int]] | None = None,
    remove: Mapping[int, Sequence[int]] | None = None,
    fraction: float | None = None,
    by: Any = "shp",
    protect: int = 1,
    normalise: bool = False,
    data: Any = None,
    **score_options: Any,
) -> Any:
    """Builds a smaller model without some of the heads.

    The heads' columns are cut from the kernels of queries, keys and values, and their rows from the
    output projection, whose bias stays. Up to rounding, the model computes what the larger one
    computes with a `head_mask` of 0 for these heads. The other heads keep their width and order, so
    blocks may end up with different numbers of heads. LoRA updates are merged into the kernels; the
    optimizer is dropped. A short fine-tuning recovers some of the accuracy.

    Grouped attention loses whole groups, or equally many heads of each. Gates of removed heads
    stay, because they normalise those of the others. Some kinds, such as talking heads, cannot lose
    heads; the error says what to do.

    Args:
        model: a `CCTImageClassifier` or a `CCTBackbone`, not quantised; it is not changed.
        keep: dict from the index of a block to the list of its heads to keep; other blocks keep all
            heads.
        remove: dict from the index of a block to the list of its heads to remove. Pass exactly one
            of `keep`, `remove` and `fraction`.
        fraction: float in [0, 1), share of all heads of the model to remove, rounded down. The
            heads with the lowest scores are removed.
        by: what to rank by, with `fraction`: the name of a score of `head_scores`, which measures
            it on `data`; a pair of a `HeadScoreTable` and the name of a column; or a dict from
            block to an array `(heads,)`, higher for heads that matter more. Defaults to `"shp"`,
            the number of labels in the head's clusters in single-head performance.
        protect: int, least number of heads to keep in each block. Defaults to `1`.
        normalise: bool, whether to divide the scores of each block by their Euclidean norm before
            comparing blocks, as Michel et al. do. Defaults to `False`.
        data: labelled images to measure scores on; do not use those of the final evaluation.
        **score_options: further arguments of `head_scores`, such as `readouts` and `max_images`.

    Returns:
        A new model of the same class.

    Raises:
        ValueError: if a block or head is unknown, a block would lose all heads, the fraction is not
            in [0, 1) or `protect` does not allow it, the scores belong to another model, the model
            has no heads or is quantised, or a kind of attention cannot lose these heads.

    Example:

    ```python
    model = lsmha_keras.CCTImageClassifier.from_preset("lsmha-small")
    smaller = lsmha_keras.prune_heads(model, remove={2: [0, 5], 3: [1]})
    print(smaller.backbone.num_heads)  # [14, 15]
    ```

    References:
        - [Michel et al., 2019](https://arxiv.org/abs/1905.10650)
    """
    blocks = prunable_blocks(model)
    if sum(way is not None for way in (keep, remove, fraction)) != 1:
        raise InputError(
            "Pass exactly one of `keep`, `remove` and `fraction`. "
            f"Received: keep={keep}, remove={remove}, fraction={fraction}"
        )
    if fraction is not None:
        remove = choose_heads(model, fraction, by, protect, normalise, data, **score_options)
    kept = _kept_heads(blocks, keep, remove)
    if isinstance(model, CCTBaseBackbone):
        return built_with_weights(lambda: _without_heads(model, kept))
    return built_with_weights(lambda: model.with_backbone(_without_heads(model.backbone, kept)))


def choose_heads(
    model: Any,
    fraction: float,
    by: Any = "shp",
    protect: int = 1,
    normalise: bool = False,
    data: Any = None,
    **score_options: Any,
) -> dict[int, list[int]]:
    """Chooses the heads that `prune_heads` removes.

    Args:
        model: a `CCTImageClassifier` or a `CCTBackbone`, not quantised.
        fraction: float in [0, 1).
        by: scores; see `prune_heads`.
        protect: int, least number of heads to keep in each block.
        normalise: bool, whether to normalise the scores of each block first.
        data: labelled images; see `prune_heads`.
        **score_options: further arguments of `head_scores`.

    Returns:
        A dict from block to the heads to remove, in ascending order; blocks that lose none are
        missing.

    Raises:
        ValueError: as `prune_heads`.
    """
    blocks, protect = prunable_blocks(model), positive_int("protect", protect)
    fraction = number_in("[0, 1)", "fraction", fraction)
    # First, because it refuses kinds that cannot lose heads, and measuring takes long.
    units = [(i, unit) for i, block in blocks.items() for unit in block.attention.head_units()]
    scores = _check_scores(_find_scores(model, by, data, score_options), blocks, normalise)
    total = sum(block.num_heads for block in blocks.values())
    budget = int(fraction * total + 1e-6)  # 0.29 * 100 is 28.999999999999996
    units = sorted(units, key=lambda unit: float(np.mean(scores[unit[0]][unit[1]])))
    left = {index: block.num_heads for index, block in blocks.items()}
    removed: dict[int, list[int]] = {}
    refused = []  # sizes of the units that `protect` keeps
    for index, unit in units:
        if len(unit) > budget:
            continue
        if left[index] - len(unit) < protect:
            refused.append(len(unit))
            continue
        budget, left[index] = budget - len(unit), left[index] - len(unit)
        removed[index] = sorted([*removed.get(index, []), *unit])
    if any(size <= budget for size in refused):
        raise InputError(
            f"With protect={protect}, at most {(total - sum(left.values())) / total:.3f} of the "
            f"{total} heads can be removed. Received: fraction={fraction}"
        )
    return dict(sorted(removed.items()))


def prunable_blocks(model: Any) -> dict[int, TransformerBlock]:
    """Returns the blocks that have heads, as a dict from the block's index.

    Raises:
        ValueError: if the model is not of this package, has no heads, or is quantised.
    """
    backbone = getattr(model, "backbone", model)
    if not isinstance(backbone, CCTBaseBackbone):
        raise InputError(
            "Heads are removed from a `CCTImageClassifier` or a `CCTBackbone`; for a committee, "
            f"from each member. Received: {type(model).__name__}"
        )
    found = {i: b for i, b in enumerate(backbone.blocks) if isinstance(b, TransformerBlock)}
    if not found:
        raise InputError(
            "The model has no heads: all its blocks are convolutional. "
            f"Received: num_conv_blocks={backbone.num_conv_blocks} of {backbone.num_layers} blocks"
        )
    check_full_precision(backbone, "loses heads")
    return found


def _find_scores(model, by, data, options):
    """Returns `{block: (heads,) array}`, higher for heads that matter more."""
    if isinstance(by, str):
        if data is None and by != "random":
            raise InputError(
                "Heads are scored on labelled images: pass `data`, or earlier scores as "
                f"`by`. Received: by={by!r}, data=None"
            )
        table = head_scores(model, data, [by], **options)
        return table.importance(by)
    if isinstance(by, (tuple, list)) and len(by) == 2 and isinstance(by[0], HeadScoreTable):
        table, name = by
        if table.weights not in ("", weights_digest(model)):
            raise InputError(
                "The scores belong to another model, or to this one before its weights changed: "
                f"measure them again. Received: scores of the weights {table.weights}, a model "
                f"with {weights_digest(model)}"
            )
        return table.importance(name)
    return by


def _check_scores(by, blocks, normalise):
    """Returns `{block: (heads,) float array}`."""
    if not isinstance(by, Mapping):
        raise InputError(
            "`by` must be the name of a score, a pair of a `HeadScoreTable` and the name of a "
            "column, or a dict from each block to an array with a score for each head. "
            f"Received: by={by!r}"
        )
    scores = {index: np.asarray(values, "float64") for index, values in by.items()}
    expected = {index: (block.num_heads,) for index, block in blocks.items()}
    found = {index: values.shape for index, values in scores.items()}
    if found != expected:
        raise InputError(
            "The scores belong to another model, or miss heads: the blocks of this one have "
            f"{ {i: shape[0] for i, shape in expected.items()} } heads. "
            f"Received: scores of shapes {found}"
        )
    if broken := [index for index, values in scores.items() if np.isnan(values).any()]:
        raise InputError(f"Scores must be numbers. Received: NaN in the blocks {broken}")
    if not normalise:
        return scores
    if endless := [index for index, values in scores.items() if np.isinf(values).any()]:
        raise InputError(
            "Infinite scores, such as signal without noise, cannot be normalised: leave "
            f"`normalise` out. Received: normalise=True, infinity in the blocks {endless}"
        )
    norms = {index: np.linalg.norm(values) for index, values in scores.items()}
    return {index: values / (norms[index] or 1) for index, values in scores.items()}


def _kept_heads(blocks, keep, remove):
    """Returns `{block: heads to keep}` for the blocks that lose heads."""
    name, given = ("remove", remove) if keep is None else ("keep", keep)
    if not isinstance(given, Mapping):
        raise InputError(
            f"`{name}` must be a dict from blocks to lists of heads. Received: {name}={given!r}"
        )
    kept = {}
    for index, heads in given.items():
        if index not in blocks:
            raise InputError(
                f"The blocks {list(blocks)} have heads. Received: {name} with block {index}"
            )
        count, heads = blocks[index].num_heads, list(plain(list(heads)))
        if unknown := [h for h in heads if isinstance(h, bool) or h not in range(count)]:
            raise InputError(
                f"Block {index} has the heads 0 to {count - 1}. "
                f"Received: {name} with the heads {unknown} of it"
            )
        stay = sorted(set(heads) if keep is not None else set(range(count)) - set(heads))
        if not stay:
            raise InputError(
                f"At least one head must stay in every block. Received: {name} with {heads} for "
                f"block {index}, which has {count}"
            )
        if len(stay) < count:
            kept[index] = stay
    return kept


def _without_heads(backbone, kept):
    kinds = backbone.block_kinds
    lists = {
        name: per_block(name, getattr(backbone, name), count_heads_blocks(kinds))
        for name in ("num_heads", "head_dim", "attention_options")
    }
    for index, heads in kept.items():
        block, place = backbone.blocks[index], count_heads_blocks(kinds[:index])
        block.attention.head_units()  # refuses kinds that cannot lose heads
        fixed = find_attention(block.attention_kind).options
        options = block.attention.pruned_options(heads)
        options = {name: value for name, value in options.items() if name not in fixed}
        lists["num_heads"][place] = len(heads)
        lists["head_dim"][place] = block.attention.width
        if options:
            lists["attention_options"][place] = {**(block.attention_options or {}), **options}
    # Equal entries become one value again, so configs stay readable.
    lists = {name: joined(values) for name, values in lists.items()}
    smaller = type(backbone).from_config({**backbone.get_config(), **lists})
    kept_of_layer = {backbone.blocks[index].name: heads for index, heads in kept.items()}
    for layer in smaller.layers:
        if not layer.weights:
            continue
        source = backbone.get_layer(layer.name)
        if heads := kept_of_layer.get(layer.name):
            copy_weights(source, layer, except_for=("attention",))
            layer.attention.take_heads(source.attention, heads)
        else:
            copy_weights(source, layer)
    return smaller
