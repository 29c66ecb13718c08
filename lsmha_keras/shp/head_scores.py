"""Scores of heads, to choose by and to compare with single-head performance."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
from keras import ops

from lsmha_keras.data.labelled import ImageBatches, class_labels
from lsmha_keras.errors import InputError, nearest
from lsmha_keras.layers.transformer_block import TransformerBlock
from lsmha_keras.models.block_walk import BlockWalk, prepared
from lsmha_keras.progress import Progress
from lsmha_keras.shp.attention_profile import (
    attention_distance,
    attention_entropy,
    attention_offset,
    attention_similarity,
    linear_cka,
    most_alike,
    token_distances,
    token_offsets,
    token_shares,
)
from lsmha_keras.shp.head_outputs import check_blocks, gradient
from lsmha_keras.shp.head_score_table import (
    ALIASES,
    SCORES,
    HeadScoreTable,
    weights_digest,
)
from lsmha_keras.shp.performance import HeadFields
from lsmha_keras.shp.readout_trainer import fit_readout
from lsmha_keras.shp.readouts import BlockReadouts
from lsmha_keras.shp.statistics import block_statistics
from lsmha_keras.types import Dataset, PathLike, Verbose

_SHP = ("shp_coverage", "shp_clusters", "shp_snr")
MEASURED = tuple(name for name in SCORES if name not in (*_SHP, "random"))
# What the report on single-head performance sets beside it.
CLASSICAL = ("accuracy_drop", "mask_gradient", "attention_entropy", "attention_distance")


class BlockHeadScores(keras.Model):
    """Scores of the heads of one transformer block of a classifier, image by image.

    The tokens that enter the block are the input, so that the layers before it run once however
    many heads are masked.

    Args:
        classifier: a `CCTImageClassifier`; it runs in inference mode.
        block: int, index of a transformer block.
        methods: names of `MEASURED` scores.

    Call arguments:
        inputs: dict of `"tokens"`, `(batch, tokens, hidden_dim)`, which enter the block,
            `"padding_mask"`, `(batch, tokens)`, `False` for padding, if the classifier's sequences
            have some, `"labels"`, `(batch,)` integers, and `"weights"`, `(batch,)`, 0 for images
            that only fill the batch up.

    Returns:
        A dict with the float32 sums over images that `finish` makes scores of. For the methods
        `(heads,)`: `"accuracy_drop"` of 1 where masking the head makes a right answer wrong, -1
        where it makes a wrong answer right, else 0; `"mask_gradient"` of the absolute derivative of
        the cross-entropy by the head's mask at 1; `"attention_entropy"` and `"attention_distance"`,
        see the functions of these names. `"offset"` `(heads, 2)`; `"map_redundancy"`
        `(heads, heads)`; `"output_redundancy"`, second and first moments of the head outputs.

    References:
        - [Michel et al., 2019](https://arxiv.org/abs/1905.10650), section 4.1, `mask_gradient`
    """

    def __init__(self, classifier, block, methods):
        super().__init__(name=f"block_{block}_head_scores")
        self.classifier, self.block, self.methods = classifier, block, tuple(methods)
        backbone = classifier.backbone
        self.num_heads = backbone.blocks[block].num_heads
        grid = backbone.position_embedding_layer.grid_shape
        self.token_distances = token_distances(grid, backbone.extent)
        self.token_offsets = token_offsets(grid, backbone.extent)
        self.built = True

    def call(self, inputs):
        entering = inputs["tokens"], inputs.get("padding_mask")
        labels = ops.cast(inputs["labels"], "int32")
        found = self._attention(*entering)
        if "accuracy_drop" in self.methods:
            found["accuracy_drop"] = self._accuracy_drop(entering, labels)
        if "mask_gradient" in self.methods:
            found["mask_gradient"] = self._mask_gradient(entering, labels)
        weights = inputs["weights"]
        sums = {name: ops.tensordot(weights, values, axes=1) for name, values in found.items()}
        return {**sums, **self._moments(*entering, weights)}

    def _attention(self, tokens, mask):
        wanted = {
            "attention_entropy": attention_entropy,
            "attention_distance": functools.partial(
                attention_distance, distances=self.token_distances
            ),
            "offset": functools.partial(attention_offset, offsets=self.token_offsets),
            "map_redundancy": attention_similarity,
        }
        wanted = {name: measure for name, measure in wanted.items() if name in self.methods}
        if not wanted:
            return {}
        scores = self._run(tokens, mask, return_attention_scores=True)[1]
        return {name: measure(scores, padding_mask=mask) for name, measure in wanted.items()}

    def _moments(self, tokens, mask, weights):
        if "output_redundancy" not in self.methods:
            return {}
        heads = self._run(tokens, mask, return_head_outputs=True)[1]
        batch, count = ops.shape(tokens)[:2]
        flat = ops.cast(ops.reshape(heads, (batch * count, -1)), "float32")
        shares = ops.full((1, count), 1 / count) if mask is None else token_shares(mask)
        weighted = flat * ops.reshape(weights[:, None] * shares, (-1, 1))
        moments = ops.matmul(ops.transpose(flat), weighted)
        return {"output_redundancy": moments, "output_mean": ops.sum(weighted, axis=0)}

    def _run(self, tokens, mask, **arguments):
        walk = BlockWalk(self.classifier.backbone, self.block, mask)
        return walk.run(self.block, tokens, training=False, **arguments)

    def finish(self, sums, num_images):
        """Makes scores of what calls returned.

        Args:
            sums: dict of float64 arrays, summed over calls.
            num_images: int.

        Returns:
            A dict from method to a float64 array `(heads,)`.
        """
        means = {name: total / num_images for name, total in sums.items()}
        if "offset" in means:
            means["offset"] = np.linalg.norm(means["offset"], axis=-1)
        if "map_redundancy" in means:
            means["map_redundancy"] = most_alike(means["map_redundancy"])
        if "output_redundancy" in means:
            mean = means.pop("output_mean")
            covariances = means["output_redundancy"] - np.outer(mean, mean)
            means["output_redundancy"] = most_alike(linear_cka(covariances, self.num_heads))
        return {name: means[name] for name in self.methods}

    def _outputs(self, entering, head_mask):
        """What the classifier gives, float32, from the tokens that enter the block."""
        classifier, (tokens, mask) = self.classifier, entering
        walk = BlockWalk(classifier.backbone, self.block, mask)
        tokens = walk.run(self.block, tokens, training=False, head_mask=head_mask)
        for i in range(self.block + 1, len(classifier.backbone.blocks)):
            tokens = walk.run(i, tokens, training=False)
        pooled = classifier.pooler(classifier.backbone.layer_norm(tokens), padding_mask=mask)
        return ops.cast(classifier.output_dense(pooled), "float32")

    def _accuracy_drop(self, entering, labels):
        def is_right(head_mask):
            answers = ops.argmax(self._outputs(entering, head_mask), axis=-1)
            return ops.cast(ops.equal(ops.cast(answers, "int32"), labels), "float32")

        # One head after the other: memory does not grow with their number.
        masked = ops.map(is_right, 1.0 - ops.eye(self.num_heads))  # (heads, batch)
        return is_right(ops.ones((self.num_heads,)))[:, None] - ops.transpose(masked)

    def _mask_gradient(self, entering, labels):
        is_linear = keras.activations.get(self.classifier.activation) is keras.activations.linear

        def loss(head_mask):
            outputs = self._outputs(entering, head_mask)
            return ops.sum(
                ops.sparse_categorical_crossentropy(labels, outputs, from_logits=is_linear)
            )

        # With a mask for each image, the gradient of the summed loss holds each image's own.
        return ops.abs(gradient(loss, ops.ones((ops.shape(labels)[0], self.num_heads))))


def head_scores(
    model: Any,
    dataset: Dataset,
    methods: Sequence[str] | None = None,
    blocks: Sequence[int] | None = None,
    readouts: BlockReadouts | PathLike | None = None,
    readout_data: Dataset = None,
    readout_epochs: int = 10,
    threshold: float = 0.3,
    batch_size: int = 64,
    verbose: Verbose = "auto",
    seed: int = 0,
    **batch_options: Any,
) -> HeadScoreTable:
    """Measures every head in several ways: one table, a row a head and a column a method.

    By single-head performance, from readouts:

    * `"shp_coverage"`: labels on the head's clusters;
    * `"shp_clusters"`: the head's clusters;
    * `"shp_snr"`: the head's signal-to-noise ratio, infinite without noise.

    By the model's own answers:

    * `"accuracy_drop"`: the accuracy minus that with the head masked, in -1 .. 1;
    * `"mask_gradient"`: mean over images of the absolute derivative of the cross-entropy by the
      head's mask at 1, in nats.

    By where it looks, means over queries and images:

    * `"attention_entropy"`: entropy of the attention over keys, in nats;
    * `"attention_distance"`: distance from a query's token to those it looks at, weighted by the
      attention, in pixels of the model's input, or words or time steps of a sequence;
    * `"offset"`: length of the mean way from a query to what it looks at, in pixels: large where
      the head looks to one side, whatever the image.

    By the other heads of its block, in 0 .. 1 for most; 0 if there are none:

    * `"map_redundancy"`: mean cosine with the attention map of the head that is most alike;
    * `"output_redundancy"`: linear centred kernel alignment of its outputs with those of the head
      that is most alike.

    And `"random"`, uniform in [0, 1), to compare with. Padding of sequences is left out of all.

    Single-head performance is a pass of its own, after the fitting of readouts; all else is
    measured in one pass over the data. For the accuracy drop every head costs a run of its block
    and those after it. One block's attention on one batch is held in memory.

    Args:
        model: a `CCTImageClassifier`.
        dataset: labelled images of any kind; see `fit_readout`. Heads are chosen on training or
            validation images, not on those that tell what was lost.
        methods: list of the names above, or `None` for all; then single-head performance only if
            there are `readouts` or `readout_data`.
        blocks: list of indices of transformer blocks, or `None` for all of them.
        readouts: fitted `BlockReadouts`, or where they are saved; `None` to fit them.
        readout_data: what to fit them on; `None` for `dataset`, of one given by name the training
            images.
        readout_epochs: int, how long to fit them. Defaults to `10`.
        threshold: float, of the clusters. Defaults to `0.3`.
        batch_size: int, images of a batch where the dataset does not decide that itself.
        verbose: 0 prints nothing, 1 a bar, 2 lines; "auto" a bar in a terminal, else lines.
        seed: int, of `"random"`, of the readouts and of the choice of `max_images`.
        **batch_options: `split`, `data_dir` and `max_images`, for a dataset given by name.

    Returns:
        A `HeadScoreTable`: a mapping from block to a dict from method to a float64 array
        `(heads,)`, which saves and loads as csv.

    Raises:
        ValueError: if the model has no heads to mask, a method is unknown, a block has no heads,
            the dataset is empty or has no labels, or a label is not one of the model's.

    Example:

    ```python
    classifier = lsmha_keras.CCTImageClassifier.from_preset("cct_2_3x2_h16", num_classes=10)
    images = np.random.randint(0, 256, size=(8, 32, 32, 3), dtype="uint8")
    scores = lsmha_keras.head_scores(classifier, (images, np.arange(8)), ["accuracy_drop"])
    scores[1]["accuracy_drop"]  # (16,)
    scores.save("scores.csv")
    ```

    References:
        - [Gross et al., 2025](https://arxiv.org/abs/2506.23832), single-head performance
        - [Michel et al., 2019](https://arxiv.org/abs/1905.10650), accuracy drop and mask gradient
        - [Dosovitskiy et al., 2021](https://arxiv.org/abs/2010.11929), attention distance
        - [Kornblith et al., 2019](https://arxiv.org/abs/1905.00414), kernel alignment
    """
    blocks = check_blocks(blocks, _maskable_blocks(model))
    methods = check_methods(methods, readouts is not None or readout_data is not None)
    batch_options["seed"] = seed
    values: dict[int, dict[str, np.ndarray]] = {block: {} for block in blocks}
    if measured := [name for name in methods if name in MEASURED]:
        found = _measure(model, dataset, measured, blocks, batch_size, verbose, batch_options)
        for block, scores in found.items():
            values[block].update(scores)
    if any(name in _SHP for name in methods):
        fitting = readout_data, readout_epochs
        found = _single_heads(
            model, dataset, blocks, readouts, fitting, threshold, verbose, batch_options
        )
        for block, scores in found.items():
            values[block].update(scores)
    rng = np.random.default_rng(seed)
    for block, scores in values.items():
        scores["random"] = rng.uniform(size=model.backbone.blocks[block].num_heads)
        values[block] = {name: scores[name] for name in methods}
    return HeadScoreTable(values, weights_digest(model))


def check_methods(methods, has_readouts=True):
    """Checks names of scores.

    Args:
        methods: list of names, one name, or `None` for all.
        has_readouts: bool, whether all are those of single-head performance too.

    Returns:
        A list of names without abbreviations.

    Raises:
        ValueError: if one is unknown, naming the nearest, or there is none.
    """
    if methods is None:
        return [name for name in SCORES if has_readouts or name not in _SHP]
    names = [
        ALIASES.get(name, name) for name in ([methods] if isinstance(methods, str) else methods)
    ]
    unknown = [name for name in names if name not in SCORES]
    if unknown or not names:
        hint = nearest(unknown[0], SCORES) if unknown else ""
        raise InputError(f"The scores are {', '.join(SCORES)}{hint}. Received: methods={methods}")
    return list(dict.fromkeys(names))


def _measure(model, dataset, methods, blocks, batch_size, verbose, batch_options):
    """Returns `{block: {method: (heads,) array}}`, from one pass over the data."""
    entries = {block: f"block_{block - 1}/output" if block else "embedding" for block in blocks}
    padding = ["padding_mask"] * model.backbone.has_padding
    trunk = model.backbone.intermediates([*entries.values(), *padding])
    scorers = {block: BlockHeadScores(model, block, methods) for block in blocks}
    sums = {block: {} for block in blocks}
    num_images = size = 0
    batches = ImageBatches(dataset, batch_size, model, **batch_options)
    progress = Progress(len(batches), verbose)
    for images, labels in batches.epoch():
        labels = class_labels(labels, model.num_classes, num_images)
        size = max(size, len(images))
        tokens = trunk.predict_on_batch(prepared(model, _fill(images, size)))
        inputs = {"labels": _fill(labels, size)}
        inputs["weights"] = (np.arange(size) < len(images)).astype("float32")
        inputs |= {name: tokens[name] for name in padding}
        for block, scorer in scorers.items():
            found = scorer.predict_on_batch({**inputs, "tokens": tokens[entries[block]]})
            for name, value in found.items():
                sums[block][name] = sums[block].get(name, 0.0) + value.astype("float64")
        num_images += len(images)
        progress.add()
    progress.finish()
    return {block: scorer.finish(sums[block], num_images) for block, scorer in scorers.items()}


def _single_heads(model, dataset, blocks, readouts, fitting, threshold, verbose, batch_options):
    """Returns `{block: {method: (heads,) values}}` by single-head performance."""
    readout_data, epochs = fitting
    if readouts is None:
        readouts = fit_readout(
            model,
            dataset if readout_data is None else readout_data,
            blocks,
            num_labels=model.num_classes,
            epochs=epochs,
            verbose=verbose,
            **{name: value for name, value in batch_options.items() if name != "split"},
        )
    elif not isinstance(readouts, BlockReadouts):
        readouts = BlockReadouts.load(readouts)
    if missing := sorted(set(blocks) - set(readouts.blocks)):
        raise InputError(
            f"There are readouts only for the blocks {readouts.blocks}. Received: blocks={missing}"
        )
    fields = HeadFields(model, readouts.blocks)
    results = fields.measure(readouts, dataset, threshold, verbose=verbose, **batch_options)
    return {
        block: {
            "shp_coverage": [sum(map(len, clusters)) for clusters in result.clusters],
            "shp_clusters": result.statistics.num_clusters,
            "shp_snr": [block_statistics(matrix, threshold).snr for matrix in result.matrices],
        }
        for block, result in results["recomputed"].items()
        if block in blocks
    }


def _maskable_blocks(model):
    if not hasattr(model, "backbone"):
        raise InputError(
            "The model must be a `CCTImageClassifier`, whose heads can be masked. "
            f"Received: {type(model).__name__}"
        )
    return [i for i, b in enumerate(model.backbone.blocks) if isinstance(b, TransformerBlock)]


def _fill(values, size):
    """Repeats the last value up to the size of a full batch, which spares a compilation."""
    return np.concatenate([values, np.repeat(values[-1:], size - len(values), axis=0)])
