"""Lets heads with similar attention maps share one."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from keras import ops

from lsmha_keras._imports import needed_package
from lsmha_keras.arguments import plain
from lsmha_keras.data.labelled import ImageBatches
from lsmha_keras.errors import InputError
from lsmha_keras.models.block_walk import prepared
from lsmha_keras.models.blocks import count_heads_blocks, joined, per_block
from lsmha_keras.models.copy_weights import copy_weights
from lsmha_keras.progress import Progress
from lsmha_keras.shp.attention_profile import attention_similarity
from lsmha_keras.surgery.prune_heads import prunable_blocks
from lsmha_keras.types import Dataset, Verbose


def head_similarity(
    model: Any,
    dataset: Dataset,
    batch_size: int = 64,
    verbose: Verbose = "auto",
    **batch_options: Any,
) -> dict[int, np.ndarray]:
    """Measures how similar the attention maps of the heads in each block are.

    Maps are compared image by image and the similarities averaged. Comparing mean maps would not
    do: they can agree although the heads attend to different places in every image.

    Args:
        model: a `CCTImageClassifier` whose kinds of attention have attention scores.
        dataset: images of any kind; see `fit_readout`. A few hundred are enough.
        batch_size: int, images per batch, if the dataset is not batched.
        verbose: 0 prints nothing, 1 a bar, 2 lines; "auto" a bar in a terminal, else lines.
        **batch_options: `split`, `data_dir`, `max_images` and `seed` for a dataset given by name.

    Returns:
        A dict from the index of a block to a float64 array `(heads, heads)` with values in -1 .. 1:
        the cosine of two heads' mean-centred maps, averaged over images.

    Raises:
        ValueError: if the model has no heads, a kind of attention has no attention scores, or the
            dataset is empty.

    Example:

    ```python
    classifier = lsmha_keras.CCTImageClassifier.from_preset("cct_2_3x2_h16", num_classes=10)
    images = np.random.randint(0, 256, size=(8, 32, 32, 3), dtype="uint8")
    similarity = lsmha_keras.head_similarity(classifier, (images, np.zeros(8, int)))
    similarity[1].shape  # (16, 16)
    ```
    """
    names = {index: f"block_{index}/attention_scores" for index in prunable_blocks(model)}
    padding = ["padding_mask"] * model.backbone.has_padding
    traced = model.intermediates([*names.values(), *padding])
    sums: dict[int, Any] = dict.fromkeys(names, 0.0)
    count = 0
    batches = ImageBatches(dataset, batch_size, model, **batch_options)
    progress = Progress(len(batches), verbose)
    for images, _ in batches.epoch():
        maps = traced.predict_on_batch(prepared(model, images))
        for index, name in names.items():
            alike = attention_similarity(maps[name], maps.get("padding_mask"))
            alike = ops.convert_to_numpy(alike)
            sums[index] = sums[index] + alike.astype("float64").sum(axis=0)
        count += len(images)
        progress.add()
    progress.finish()
    return {index: total / count for index, total in sums.items()}


def share_heads(
    model: Any,
    num_maps: int | Mapping[int, int],
    data: Dataset = None,
    similarity: Mapping[int, Any] | None = None,
    **options: Any,
) -> Any:
    """Builds a model in which heads with similar attention maps share one.

    The heads of a block are clustered by average linkage, with one minus the similarity of their
    maps as distance. All heads of a cluster use the queries and keys of its medoid, the head most
    similar to the others; every head keeps its own values. The new blocks have attention of kind
    `"clustered"`, which costs as much as `num_maps` heads with wide values. A short fine-tuning
    recovers some of the accuracy.

    Args:
        model: a `CCTImageClassifier` with plain attention, not quantised; it is not changed.
        num_maps: int, number of maps in each block, or a dict from block to int; blocks that are
            not in the dict are not changed. As many maps as heads change nothing.
        data: images to measure the similarity on; see `head_similarity`.
        similarity: dict from block to an array `(heads, heads)`, an earlier result of
            `head_similarity`, instead of `data`.
        **options: further arguments of `head_similarity`, such as `max_images`.

    Returns:
        A new `CCTImageClassifier`; `backbone.blocks[i].attention.map_of_head` gives the map of each
        head of block `i`.

    Raises:
        ImportError: if SciPy is missing.
        ValueError: if a number of maps is out of range, the attention of a block is not plain, the
            similarity belongs to other heads, or the model is quantised.

    Example:

    ```python
    model = lsmha_keras.CCTImageClassifier.from_preset("cct_2_3x2_h16", num_classes=10)
    alike = {0: np.eye(16), 1: np.eye(16)}
    shared = lsmha_keras.share_heads(model, num_maps=4, similarity=alike)
    print(shared.backbone.blocks[0].attention.map_of_head)
    ```

    References:
        - [Agarwal et al., 2024](https://arxiv.org/abs/2403.08058)
    """
    blocks = prunable_blocks(model)
    maps = _check_num_maps(num_maps, blocks)
    if (data is None) == (similarity is None):
        raise InputError(
            "Pass either images as `data` or a result of `head_similarity` as `similarity`. "
            f"Received: data={type(data).__name__}, similarity={type(similarity).__name__}"
        )
    if similarity is None:
        similarity = head_similarity(model, data, **options)
    groups = {
        index: cluster_heads(_check_similarity(similarity, index, blocks[index].num_heads), count)
        for index, count in maps.items()
    }
    return model.with_backbone(_shared(model.backbone, groups))


def _check_num_maps(num_maps, blocks):
    """Returns `{block: number of maps}`."""
    num_maps = plain(num_maps)
    if not isinstance(num_maps, Mapping):
        num_maps = dict.fromkeys(blocks, num_maps)
    for index, count in num_maps.items():
        if index not in blocks:
            raise InputError(
                f"The blocks {list(blocks)} have heads. Received: num_maps for block {index}"
            )
        block = blocks[index]
        if isinstance(count, bool) or count not in range(1, block.num_heads + 1):
            raise InputError(
                f"`num_maps` must be from 1 to the number of heads, which is {block.num_heads} in "
                f"block {index}. Received: num_maps={count!r}"
            )
        if block.attention_kind != "multi_head":
            raise InputError(
                "Only heads of plain attention can share maps; call `lsmha_keras.convert_attention("
                f"model, 'multi_head')` first. Received: attention={block.attention_kind!r} in "
                f"block {index}"
            )
    return num_maps


def cluster_heads(similarity: Any, count: int) -> tuple[list[int], list[int]]:
    """Puts heads into clusters by average linkage of one minus their similarity.

    Args:
        similarity: array `(heads, heads)`.
        count: int, of clusters.

    Returns:
        For each head the number of its cluster, in the order of the clusters' first heads; and for
        each cluster its medoid, the head most similar to the others.

    Raises:
        ImportError: if SciPy is missing.

    Example:
        >>> cluster_heads([[1, 0, 0.9], [0, 1, 0], [0.9, 0, 1]], 2)
        ([0, 1, 0], [0, 1])
    """
    hierarchy = needed_package("scipy.cluster.hierarchy", "explain", "Clustering heads needs SciPy")
    from scipy.spatial.distance import squareform

    alike = np.asarray(similarity, "float64")
    if len(alike) == 1:
        return [0], [0]
    distance = 1.0 - (alike + alike.T) / 2
    np.fill_diagonal(distance, 0.0)
    tree = hierarchy.linkage(squareform(np.maximum(distance, 0.0)), "average")
    labels = hierarchy.cut_tree(tree, n_clusters=count)[:, 0]
    # Number clusters by their first heads.
    _, first = np.unique(labels, return_index=True)
    clusters = [np.flatnonzero(labels == labels[head]) for head in sorted(first)]
    medoids = [int(c[np.argmin(distance[np.ix_(c, c)].sum(axis=1))]) for c in clusters]
    map_of_head = np.empty(len(alike), int)
    for number, cluster in enumerate(clusters):
        map_of_head[cluster] = number
    return map_of_head.tolist(), medoids


def _check_similarity(similarity, index, heads):
    alike = np.asarray(similarity.get(index, ()), "float64")
    if alike.shape != (heads, heads) or not np.isfinite(alike).all():
        raise InputError(
            f"The similarity of block {index} must be a finite array of shape {(heads, heads)}. "
            f"Received: shape {alike.shape}"
        )
    return alike


def _shared(backbone, groups):
    kinds = backbone.block_kinds
    lists = {
        name: per_block(name, getattr(backbone, name), count_heads_blocks(kinds))
        for name in ("attention", "attention_options")
    }
    for index, (map_of_head, _) in groups.items():
        place = count_heads_blocks(kinds[:index])
        lists["attention"][place] = "clustered"
        lists["attention_options"][place] = {"map_of_head": map_of_head}
    lists = {name: joined(values) for name, values in lists.items()}
    shared = type(backbone).from_config({**backbone.get_config(), **lists})
    medoids = {backbone.blocks[index].name: found for index, (_, found) in groups.items()}
    for layer in shared.layers:
        if not layer.weights:
            continue
        source = backbone.get_layer(layer.name)
        if layer.name not in medoids:
            copy_weights(source, layer)
            continue
        copy_weights(source, layer, except_for=("attention",))
        layer.attention.take_maps(source.attention, medoids[layer.name])
    return shared
