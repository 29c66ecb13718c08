"""Which classes a head writes towards, by sparse pursuit on the classifier's own rows."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import keras
import numpy as np
from keras import ops

from lsmha_keras.data.labelled import ImageBatches
from lsmha_keras.data.superclasses import SUPERCLASSES, superclass_labels
from lsmha_keras.errors import InputError, nearest
from lsmha_keras.heads.attention_trace import check_same_tokens
from lsmha_keras.heads.explain import check_classifier, find_label
from lsmha_keras.layers.transformer_block import TransformerBlock
from lsmha_keras.models.block_walk import prepared
from lsmha_keras.progress import Progress
from lsmha_keras.shp.head_outputs import check_blocks
from lsmha_keras.text_files import write_rows
from lsmha_keras.types import PathLike


def simultaneous_pursuit(signals, atoms, steps):
    """Chooses atoms that explain many signals together (simultaneous OMP).

    Each step adds the atom with the largest sum of absolute correlations with the residuals, then
    fits all signals by the chosen atoms anew.

    Args:
        signals: array `(signals, width)`.
        atoms: array `(atoms, width)`; their lengths do not matter, and zeros are never chosen.
        steps: int, at most `width` are of use.

    Returns:
        A pair: `(steps,)` ints, the chosen atoms in order, and `(steps,)` float64, the share of the
        signals' squares that is explained after each step. Shares are 0 if all signals are.

    References:
        - [Tropp et al., 2006](https://doi.org/10.1016/j.sigpro.2005.05.030)

    Example:
        >>> chosen, explained = simultaneous_pursuit([[0.0, 2.0], [1.0, 3.0]], np.eye(2), 2)
        >>> chosen.tolist(), explained.round(3).tolist()
        ([1, 0], [0.929, 1.0])
    """
    signals, atoms = np.asarray(signals, "float64"), np.asarray(atoms, "float64")
    lengths = np.linalg.norm(atoms, axis=1, keepdims=True)
    atoms = np.divide(atoms, lengths, out=np.zeros_like(atoms), where=lengths > 0)
    total = np.sum(signals**2)
    residual, chosen, explained = signals, [], []
    for _ in range(steps):
        gains = np.abs(residual @ atoms.T).sum(axis=0)
        gains[chosen] = -1
        chosen.append(int(gains.argmax()))
        weights = np.linalg.lstsq(atoms[chosen].T, signals.T, rcond=None)[0]
        residual = signals - weights.T @ atoms[chosen]
        explained.append(1 - np.sum(residual**2) / total if total else 0.0)
    return np.array(chosen), np.array(explained)


@dataclasses.dataclass(frozen=True, eq=False)
class HeadPursuit:
    """What the heads of a classifier write towards; what `lsmha_keras.head_pursuit` returns.

    Attributes:
        classes: dict from block to `(heads, steps)` ints: the classes that explain a head best, in
            the order of the pursuit.
        explained: dict from block to `(heads, steps)` float64: the share of the head's squares that
            is explained after each step, 0 to 1.
        concepts: dict from a concept's name to the list of its classes.
        concept_scores: dict from block to `(heads, concepts)` float64: the share that a pursuit
            among the concept's classes alone explains, with at most half as many as a head is wide.
        class_names: list of str or `None`.
    """

    classes: dict[int, np.ndarray]
    explained: dict[int, np.ndarray]
    concepts: dict[str, list[int]]
    concept_scores: dict[int, np.ndarray]
    class_names: list[str] | None = None

    def best_heads(self, concept: str, count: int = 1) -> list[tuple[int, int]]:
        """Lists the heads that a concept explains best.

        Args:
            concept: str, one of `concepts`.
            count: int, how many.

        Returns:
            A list of pairs of block and head, the best first.

        Raises:
            ValueError: if there is no such concept; names the nearest.
        """
        if concept not in self.concepts:
            raise InputError(
                f"There is no such concept{nearest(concept, self.concepts)}; there are "
                f"{', '.join(self.concepts) or 'none'}. Received: concept={concept!r}"
            )
        column = list(self.concepts).index(concept)
        scores = {
            (block, head): score
            for block, by_head in self.concept_scores.items()
            for head, score in enumerate(by_head[:, column])
        }
        return sorted(scores, key=lambda place: -scores[place])[:count]

    def rows(self) -> list[dict[str, Any]]:
        """Lists the heads.

        Returns:
            A list of dicts: `block`, `head`, `classes`, the names in the order of the pursuit
            joined by spaces, `explained` by all of them, `concept`, the one that explains most, and
            `concept_explained`.
        """
        return [self._row(b, h) for b, chosen in self.classes.items() for h in range(len(chosen))]

    def _row(self, block, head):
        names = self.class_names
        row = {
            "block": block,
            "head": head,
            "classes": " ".join(names[k] if names else str(k) for k in self.classes[block][head]),
            "explained": round(float(self.explained[block][head, -1]), 4),
        }
        if self.concepts:
            scores = self.concept_scores[block][head]
            row["concept"] = list(self.concepts)[scores.argmax()]
            row["concept_explained"] = round(float(scores.max()), 4)
        return row

    def save(self, path: PathLike) -> None:
        """Writes `rows` as a csv file."""
        write_rows(path, self.rows())


def head_pursuit(
    model: Any,
    data: Any,
    steps: int | None = None,
    concepts: Mapping[str, Sequence[int | str]] | Sequence[str] | None = None,
    blocks: Sequence[int] | None = None,
    batch_size: int = 64,
    verbose: int | str = "auto",
    **batch_options: Any,
) -> HeadPursuit:
    """Finds which classes each head writes towards, in the terms of the model's own classifier.

    What a head writes for an image is the mean of its outputs over tokens, weighted as the pooling
    weights them; it is not centred. With LAMA pooling it is the means by all heads of the pooling,
    one after the other, as if the head were so many times as wide. The atoms are the columns of the
    classifier's kernel, carried back to the head: through the last normalisation and those of the
    stream in the head's block and after it, as far as they are linear (their scales, and the means
    that they take off), and through the output projection. Left out are what is not linear: the
    division by the standard deviation of each token, the attention of later blocks and all
    perceptrons. So a head of the last block is read best, and heads of early blocks are read as if
    nothing but the stream came after them. Atoms are of length 1 in the space of the head's
    outputs, where as many atoms as a head is wide explain everything.

    Args:
        model: a `CCTImageClassifier`.
        data: labelled images of any kind; see `ImageBatches`. The labels are not used.
        steps: int, classes per head; `None` for half of the head's width.
        concepts: dict from a name to its classes, by index or name; a list of superclasses of
            CIFAR-100; or `None` for all 20 if the model knows these classes, else none.
        blocks: list of indices of transformer blocks, or `None` for all of them.
        batch_size: int, images of a batch where the dataset does not decide that itself.
        verbose: 0 prints nothing, 1 a bar, 2 lines; "auto" a bar in a terminal, else lines.
        **batch_options: `split`, `data_dir`, `max_images` and `seed` of `ImageBatches`.

    Returns:
        A `HeadPursuit`.

    Raises:
        ValueError: if the model has no heads, a block, concept or class is unknown (the nearest is
            named), or `steps` is not in 1 .. the width of a head.

    Example:

    ```python
    pursuit = lsmha_keras.head_pursuit(model, "cifar100", max_images=1000)
    pursuit.save("heads.csv")
    pursuit.best_heads("flowers", count=2)  # [(6, 3), (5, 11)]
    ```

    References:
        - [Basile et al., 2025](https://arxiv.org/abs/2510.21518), Head Pursuit
    """
    check_classifier(model)
    layers = model.backbone.blocks
    valid = [i for i, block in enumerate(layers) if isinstance(block, TransformerBlock)]
    blocks = check_blocks(blocks, valid)
    check_same_tokens(model.backbone, "Heads are pooled by the weights of the last tokens")
    groups = _concepts(model, concepts)
    written = _pooled_heads(model, blocks, data, batch_size, verbose, batch_options)
    classes, explained, scores = {}, {}, {}
    for block in blocks:
        atoms = class_atoms(model, block)  # (heads, classes, head_dim)
        half = max(1, atoms.shape[2] // 2)
        count = half if steps is None else steps
        if not 1 <= count <= min(atoms.shape[1:]):
            raise InputError(
                f"`steps` must be in 1 .. {min(atoms.shape[1:])}, as heads of block {block} are "
                f"{atoms.shape[2]} wide. Received: steps={steps}"
            )
        heads = list(zip(np.swapaxes(written[block], 0, 1), atoms, strict=True))
        found = [simultaneous_pursuit(*head, count) for head in heads]
        classes[block], explained[block] = (np.stack(part) for part in zip(*found, strict=True))
        scores[block] = np.array(
            [[_share(*head, members, half) for members in groups.values()] for head in heads]
        )
    return HeadPursuit(classes, explained, groups, scores, model.class_names)


def _share(written, atoms, members, most):
    """The share of a head's squares that some classes explain, at most so many of them."""
    return simultaneous_pursuit(written, atoms[members], min(len(members), most))[1][-1]


def class_atoms(model, block):
    """Carries the classifier's columns back to the outputs of a block's heads; see `head_pursuit`.

    Args:
        model: `CCTImageClassifier`.
        block: int, index of a transformer block.

    Returns:
        float64 array `(heads, classes, head_dim)`; with LAMA pooling of `m` heads
        `(heads, classes, m * head_dim)`.

    Example:

    ```python
    class_atoms(model, 6).shape  # (16, 100, 8)
    ```
    """
    backbone = model.backbone
    columns = _to_numpy(model.output_dense.kernel)  # (pooling heads * channels, classes)
    columns = columns.reshape(-1, backbone.hidden_dim, columns.shape[1])
    # Of blocks of other kinds, the skip connection alone is followed.
    later = [layer for layer in backbone.blocks[block:] if isinstance(layer, TransformerBlock)]
    norms = [layer.mlp_norm for layer in later] + [backbone.layer_norm]
    for norm in reversed(norms):
        columns = _to_numpy(norm.gamma)[:, None] * columns
        # A norm takes the mean over channels off.
        columns = columns - columns.mean(axis=1, keepdims=True)
    attention = backbone.blocks[block].attention
    kernel = _to_numpy(attention.projection.kernel)  # (heads * head_dim, channels)
    # (pooling heads, heads, head_dim, classes)
    by_head = np.reshape(
        kernel @ columns, (len(columns), attention.num_heads, -1, columns.shape[2])
    )
    by_head = by_head.transpose(1, 3, 0, 2)
    return by_head.reshape(*by_head.shape[:2], -1)


class _PooledHeads(keras.Model):
    """Head outputs as a mean over tokens, weighted as the classifier pools them."""

    def __init__(self, classifier, blocks):
        super().__init__(name="pooled_heads")
        self.classifier, self.blocks = classifier, list(blocks)
        self.built = True

    def call(self, images):
        names = [f"block_{i}/head_outputs" for i in self.blocks]
        values = self.classifier.backbone.trace(images, names)
        weights = self.classifier.pooler.token_weights(values["output"], values["padding_mask"])
        if len(weights.shape) == 2:  # one mean, not several as with LAMA pooling
            weights = weights[:, None]
        return [self._pooled(weights, ops.cast(values[name], "float32")) for name in names]

    def _pooled(self, weights, heads):
        pooled = ops.einsum("bmt,bthd->bhmd", weights, heads)
        _, num_heads, means, width = pooled.shape
        return ops.reshape(pooled, (-1, num_heads, means * width))


def _pooled_heads(model, blocks, data, batch_size, verbose, batch_options):
    """Returns a dict from block to `(images, heads, head_dim)`."""
    runner = _PooledHeads(model, blocks)
    batches = ImageBatches(data, batch_size, model, **batch_options)
    progress = Progress(len(batches), verbose)
    found = []
    for images, _ in batches.epoch():
        found.append(runner.predict_on_batch(prepared(model, images)))
        progress.add()
    progress.finish()
    parts = zip(*found, strict=True)
    return {
        b: np.concatenate(part).astype("float64") for b, part in zip(blocks, parts, strict=True)
    }


def _concepts(model, concepts):
    """Returns concepts as a dict from name to a list of indices of classes."""
    names = model.class_names
    if concepts is None:
        known = all(name in (names or ()) for group in SUPERCLASSES.values() for name in group)
        concepts = list(SUPERCLASSES) if known else []
    if not isinstance(concepts, Mapping):
        return {concept: superclass_labels(names, concept) for concept in concepts}
    if empty := [name for name, members in concepts.items() if not len(members)]:
        raise InputError(f"A concept must have classes. Received: concept {empty[0]!r} without any")
    return {name: [find_label(model, k) for k in members] for name, members in concepts.items()}


def _to_numpy(weight):
    return np.asarray(ops.convert_to_numpy(ops.cast(weight, "float32")), "float64")
