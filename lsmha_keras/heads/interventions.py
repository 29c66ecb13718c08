"""What becomes of the accuracy when heads are turned around, switched off or amplified."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

import keras
import numpy as np

from lsmha_keras.arguments import positive_int
from lsmha_keras.data.labelled import ImageBatches, class_labels
from lsmha_keras.errors import InputError
from lsmha_keras.heads.explain import check_classifier, find_label
from lsmha_keras.layers.transformer_block import TransformerBlock
from lsmha_keras.models.block_walk import BlockWalk, prepared
from lsmha_keras.progress import Progress


class ScaledHeads(keras.Model):
    """A classifier whose heads are scaled, image by image.

    It begins with images, or with the tokens that enter the first block with heads, so that what
    comes before it runs once however many scales are tried. `entry` is the name under which
    `backbone.intermediates` gives these tokens.

    Args:
        classifier: a `CCTImageClassifier`; it runs in inference mode.

    Call arguments:
        inputs: dict of `"scales"`, `(batch, heads of all blocks)`, the first transformer block
            first, and `"images"`, preprocessed, or `"tokens"`, `(batch, tokens, channels)`, with
            their `"padding_mask"`, `(batch, tokens)`, if the classifier's sequences have padding.

    Returns:
        What the classifier returns, `(batch, classes)`.
    """

    def __init__(self, classifier):
        super().__init__(name="scaled_heads")
        self.classifier = classifier
        self.first_block = min(head_counts(classifier))
        self.entry = f"block_{self.first_block - 1}/output" if self.first_block else "embedding"
        self.built = True

    def call(self, inputs):
        classifier, scales = self.classifier, inputs["scales"]
        backbone, first = classifier.backbone, 0
        if "tokens" in inputs:
            x, mask = inputs["tokens"], inputs.get("padding_mask")
        else:
            x = self._enter(inputs["images"])
            mask = backbone.token_mask(inputs["images"])
        walk = BlockWalk(backbone, self.first_block, mask)
        for i, block in enumerate(backbone.blocks[self.first_block :], self.first_block):
            own = {}
            if isinstance(block, TransformerBlock):
                own["head_scale"] = scales[:, first : first + block.num_heads]
                first += block.num_heads
            x = walk.run(i, x, training=False, **own)
        pooled = classifier.pooler(backbone.layer_norm(x), padding_mask=mask)
        return classifier.output_dense(pooled)

    def _enter(self, images):
        walk = BlockWalk(self.classifier.backbone)
        x = walk.embed(images, training=False)
        for i in range(self.first_block):
            x = walk.run(i, x, training=False)
        return x


def scaled_answers(model, data, scales, batch_size=64, verbose="auto", **batch_options):
    """Tells which images a classifier answers rightly as its heads are scaled, in one pass.

    Args:
        model: a `CCTImageClassifier`.
        data: labelled images of any kind; see `ImageBatches`.
        scales: array `(sets, heads of all blocks)`, the first transformer block first.
        batch_size: int, images of a batch where the dataset does not decide that itself.
        verbose: 0 prints nothing, 1 a bar, 2 lines; "auto" a bar in a terminal, else lines.
        **batch_options: `split`, `data_dir`, `max_images` and `seed` of `ImageBatches`.

    Returns:
        A pair: bool array `(sets, images)`, true where the answer is right, and the labels,
        `(images,)` ints.

    Raises:
        ValueError: if the data have no labels, or one is not the model's.

    Example:

    ```python
    counts = head_counts(model)
    right, labels = scaled_answers(model, "cifar100", np.ones((1, sum(counts.values()))))
    right.mean()  # the accuracy
    ```
    """
    runner, scales = ScaledHeads(model), np.asarray(scales, "float32")
    front = model.backbone.intermediates(
        [runner.entry] + ["padding_mask"] * model.backbone.has_padding
    )
    right, truth = [], []
    batches = ImageBatches(data, batch_size, model, **batch_options)
    progress = Progress(len(batches), verbose)
    for images, labels in batches.epoch():
        labels = class_labels(labels, model.num_classes, sum(len(part) for part in truth))
        truth.append(labels)
        inputs = front.predict_on_batch(prepared(model, images))
        inputs["tokens"] = inputs.pop(runner.entry)
        found = np.empty((len(scales), len(images)), bool)
        for number, row in enumerate(scales):
            rows = np.repeat(row[None], len(images), axis=0)
            outputs = runner.predict_on_batch({**inputs, "scales": rows})
            found[number] = outputs.argmax(axis=1) == labels
        right.append(found)
        progress.add()
    progress.finish()
    return np.concatenate(right, axis=1), np.concatenate(truth)


def intervene_on_heads(
    model: Any,
    data: Any,
    heads: Sequence[tuple[int, int]],
    classes: Sequence[int | str],
    scale: float = -1.0,
    draws: int = 10,
    seed: int = 0,
    batch_size: int = 64,
    verbose: int | str = "auto",
    **batch_options: Any,
) -> list[dict[str, Any]]:
    """Scales heads, and compares the accuracy of some classes and of the rest, with random heads.

    Args:
        model: a `CCTImageClassifier`.
        data: labelled images of any kind; see `ImageBatches`.
        heads: list of pairs of block and head, such as `HeadPursuit.best_heads` returns.
        classes: list of classes, by index or name, such as those of a superclass.
        scale: float, what the heads' outputs are multiplied by: -1 turns what they write around, 0
            switches them off, 2 amplifies it. Defaults to `-1`.
        draws: int, random sets of heads to compare with: as many of the same blocks, none of
            `heads`. Defaults to `10`.
        seed: int, of the draws and the choice of `max_images`.
        batch_size: int, images of a batch where the dataset does not decide that itself.
        verbose: 0 prints nothing, 1 a bar, 2 lines; "auto" a bar in a terminal, else lines.
        **batch_options: `split`, `data_dir` and `max_images` of `ImageBatches`.

    Returns:
        A list of dicts, the first for the model as it is, the second for `heads`, then one for each
        draw: `heads`, "none", "chosen" or "random", `places`, such as "6/3 6/11", `accuracy` of
        the images of `classes` and `other_accuracy` of the rest, in 0 .. 1, NaN without such
        images.

    Raises:
        ValueError: if a head or class is unknown, a block has too few other heads for a draw, or
            the data have no labels.

    Example:

    ```python
    places = pursuit.best_heads("flowers", count=4)
    rows = lsmha_keras.intervene_on_heads(model, "cifar100", places, pursuit.concepts["flowers"])
    ```

    References:
        - [Basile et al., 2025](https://arxiv.org/abs/2510.21518)
    """
    check_classifier(model)
    counts = head_counts(model)
    heads = _check_heads(heads, counts)
    wanted = [find_label(model, label) for label in classes]
    draws = positive_int("draws", draws) if draws else 0
    rng = np.random.default_rng(seed)
    sets = [[], heads, *(draw_heads(heads, counts, rng) for _ in range(draws))]
    scales = np.stack([head_scales(places, counts, scale) for places in sets])
    right, truth = scaled_answers(
        model, data, scales, batch_size, verbose, seed=seed, **batch_options
    )
    inside = np.isin(truth, wanted)
    kinds = ["none", "chosen", *["random"] * draws]
    return [
        {
            "heads": kind,
            "places": " ".join(f"{block}/{head}" for block, head in places),
            "accuracy": _mean(found[inside]),
            "other_accuracy": _mean(found[~inside]),
        }
        for kind, places, found in zip(kinds, sets, right, strict=True)
    ]


def head_counts(model):
    """Returns a dict from the index of a transformer block to its number of heads."""
    blocks = enumerate(model.backbone.blocks)
    return {i: block.num_heads for i, block in blocks if isinstance(block, TransformerBlock)}


def _check_heads(heads, counts):
    heads = [(int(block), int(head)) for block, head in heads]
    for block, head in heads:
        if not 0 <= head < counts.get(block, 0):
            known = ", ".join(f"block {i} has {count}" for i, count in counts.items())
            raise InputError(
                f"`heads` must be pairs of a transformer block and one of its heads; {known}. "
                f"Received: block {block}, head {head}"
            )
    if not heads or len(set(heads)) < len(heads):
        raise InputError(f"`heads` must name heads, each once. Received: heads={heads}")
    return heads


def draw_heads(heads, counts, rng):
    """Draws as many heads of the same blocks, none of which is in `heads`.

    Args:
        heads: list of pairs of block and head.
        counts: dict from block to its number of heads.
        rng: `numpy.random.Generator`.

    Returns:
        A list of pairs likewise.

    Raises:
        ValueError: if a block has too few other heads.

    Example:
        >>> draw_heads([(1, 0)], {1: 2}, np.random.default_rng(0))
        [(1, 1)]
    """
    drawn = []
    for block, count in Counter(block for block, _ in heads).items():
        others = [h for h in range(counts[block]) if (block, h) not in heads]
        if len(others) < count:
            raise InputError(
                f"Random heads of block {block} to compare with are too few; `draws=0` does "
                f"without. Received: {count} of its {counts[block]} heads"
            )
        drawn += [(block, int(h)) for h in sorted(rng.choice(others, count, replace=False))]
    return drawn


def head_scales(places, counts, scale):
    """Lays out a scale for each head of a model.

    Args:
        places: list of pairs of block and head.
        counts: dict from block to its number of heads.
        scale: float, of the heads in `places`; that of the others is 1.

    Returns:
        float32 array `(heads of all blocks,)`.

    Example:
        >>> head_scales([(3, 1)], {2: 1, 3: 2}, -1.0)
        array([ 1.,  1., -1.], dtype=float32)
    """
    parts = {block: np.ones(count, "float32") for block, count in counts.items()}
    for block, head in places:
        parts[block][head] = scale
    return np.concatenate(list(parts.values()))


def _mean(values):
    return float(values.mean()) if len(values) else float("nan")
