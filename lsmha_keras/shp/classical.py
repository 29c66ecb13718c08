"""Scores of heads from the literature, to set beside single-head performance."""

import numpy as np

from lsmha_keras.layers.transformer_block import TransformerBlock
from lsmha_keras.progress import Progress
from lsmha_keras.shp.block_head_scores import BlockHeadScores
from lsmha_keras.shp.head_outputs import check_blocks
from lsmha_keras.shp.image_batches import ImageBatches
from lsmha_keras.training.class_labels import class_labels

SCORES = ("accuracy_drop", "mask_gradient", "attention_entropy", "attention_distance")


def head_scores(model, dataset, blocks=None, batch_size=64, verbose="auto", **batch_options):
    """Measures the classical scores of every head, in one pass over the data.

    * `"accuracy_drop"`: the accuracy minus that with the head masked, in -1 .. 1;
    * `"mask_gradient"`: mean over images of the absolute derivative of the cross-entropy by the
      head's mask at 1, in nats;
    * `"attention_entropy"`: entropy of the attention over keys, mean over queries, in nats;
    * `"attention_distance"`: distance from a query's token to those it looks at, weighted by the
      attention, mean over queries, in pixels of the model's input.

    Every head costs a run of its block and those after it; the layers before run once. No more
    than one block's attention on one batch is held in memory.

    Args:
        model: a `CCTImageClassifier`.
        dataset: labelled images of any kind; see `ImageBatches`.
        blocks: list of indices of transformer blocks, or `None` for all of them.
        batch_size: int, images of a batch where the dataset does not decide that itself.
        verbose: 0 prints nothing, 1 a bar, 2 lines; "auto" a bar in a terminal, else lines.
        **batch_options: `split`, `data_dir`, `max_images` and `seed` of `ImageBatches`.

    Returns:
        A dict from block to a dict from a score's name to a float64 array `(heads,)`.

    Raises:
        ValueError: if the model has no heads to mask, a block is not a transformer block, the
            dataset is empty or has no labels, or a label is not one of the model's classes.

    Example:

    ```python
    classifier = lsmha_keras.CCTImageClassifier.from_preset("cct_2_3x2_h16", num_classes=10)
    images = np.random.randint(0, 256, size=(8, 32, 32, 3), dtype="uint8")
    scores = head_scores(classifier, (images, np.arange(8)), blocks=[1])
    scores[1]["accuracy_drop"]  # (16,)
    ```

    References:
        - [Michel et al., 2019](https://arxiv.org/abs/1905.10650), accuracy drop and mask gradient
        - [Dosovitskiy et al., 2021](https://arxiv.org/abs/2010.11929), attention distance
    """
    blocks = check_blocks(blocks, _maskable_blocks(model))
    entries = {block: f"block_{block - 1}/output" if block else "embedding" for block in blocks}
    trunk = model.backbone.intermediates(list(entries.values()))
    scorers = {block: BlockHeadScores(model, block) for block in blocks}
    sums = dict.fromkeys(blocks, 0.0)
    num_images = size = 0
    batches = ImageBatches(dataset, batch_size, model, **batch_options)
    progress = Progress(len(batches), verbose)
    for images, labels in batches.epoch():
        labels = class_labels(labels, model.num_classes, num_images)
        size = max(size, len(images))
        tokens = trunk.predict_on_batch(model.preprocess_samples(_fill(images, size)))
        for block, scorer in scorers.items():
            inputs = {"tokens": tokens[entries[block]], "labels": _fill(labels, size)}
            scores = scorer.predict_on_batch(inputs)
            sums[block] += np.stack(
                [scores[name][: len(images)].sum(axis=0, dtype="float64") for name in SCORES]
            )
        num_images += len(images)
        progress.add()
    progress.finish()
    return {
        block: dict(zip(SCORES, total / num_images, strict=True)) for block, total in sums.items()
    }


def rank_correlations(scores, coverage):
    """Compares scores of heads with their coverage by Spearman's rank correlation, block by block.

    Args:
        scores: what `head_scores` returns.
        coverage: dict from block to an array `(heads,)`, such as the number of labels on the
            clusters of each head.

    Returns:
        A dict from block to a dict from a score's name to a float in -1 .. 1, or NaN where score
        or coverage is the same for all heads.

    Raises:
        ValueError: if a block has no coverage or not one value per head.

    Example:
        >>> rank_correlations({1: {"accuracy_drop": [0.1, 0.5, 0.2]}}, {1: [0, 4, 3]})
        {1: {'accuracy_drop': 1.0}}
    """
    for block, by_name in scores.items():
        for values in by_name.values():
            if np.shape(values) != np.shape(coverage.get(block)):
                raise ValueError(
                    f"`coverage` must have a value for each of the {len(values)} heads of block "
                    f"{block}. Received: {coverage.get(block)}"
                )
    return {
        block: {name: spearman(values, coverage[block]) for name, values in by_name.items()}
        for block, by_name in scores.items()
    }


def spearman(a, b):
    """Returns Spearman's rank correlation of two arrays, NaN if one of them is constant."""
    ranks = np.stack([_ranks(a), _ranks(b)])
    if (np.ptp(ranks, axis=1) == 0).any():
        return float("nan")
    return float(np.corrcoef(ranks)[0, 1])


def _ranks(values):
    """Ranks from 1; equal values share the mean of theirs."""
    _, inverse, counts = np.unique(values, return_inverse=True, return_counts=True)
    return (np.cumsum(counts) - (counts - 1) / 2)[inverse]


def _maskable_blocks(model):
    if not hasattr(model, "backbone"):
        raise ValueError(
            "The model must be a `CCTImageClassifier`, whose heads can be masked. "
            f"Received: {type(model).__name__}"
        )
    return [i for i, b in enumerate(model.backbone.blocks) if isinstance(b, TransformerBlock)]


def _fill(values, size):
    """Repeats the last value up to the size of a full batch, which spares a compilation."""
    return np.concatenate([values, np.repeat(values[-1:], size - len(values), axis=0)])
