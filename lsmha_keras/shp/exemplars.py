"""The images or texts that excite single heads most, and where the heads look on them."""

from __future__ import annotations

import dataclasses
from typing import Self

import numpy as np

from lsmha_keras.errors import InputError
from lsmha_keras.models.block_walk import prepared
from lsmha_keras.progress import Progress
from lsmha_keras.shp.performance import HeadFields

# Attention maps of a batch, of all heads, are kept at once.
_MAP_BATCH = 8


@dataclasses.dataclass(frozen=True, eq=False)
class Exemplars:
    """Images that excite heads; every array but the first two has an entry per head and image.

    Args:
        images: `(images, height, width, channels)` uint8, each image once; of texts `(texts,)` str,
            the words that the model sees with a space between them.
        labels: `(images,)` ints, their labels.
        block: `(rows,)` ints.
        head: `(rows,)` ints.
        unit: `(rows,)` ints, the output unit that the head excites.
        image: `(rows,)` ints, index in `images`.
        response: `(rows,)` float32: what the head alone adds to that unit, divided by the maximum
            of the head's matrix. It is the response to one image, so it may exceed 1.
        strongest: `(rows,)` bool, whether it is among the head's strongest of all, whatever unit.
        grid_shape: `(grid_height, grid_width)` of the tokens; of texts `(words, 1)`.
        maps: `(rows, tokens)` float32, where the head looks, as shares that sum to 1; `None` if a
            block's attention has no map. Of texts `(rows, words)`.
    """

    images: np.ndarray
    labels: np.ndarray
    block: np.ndarray
    head: np.ndarray
    unit: np.ndarray
    image: np.ndarray
    response: np.ndarray
    strongest: np.ndarray
    grid_shape: tuple[int, int]
    maps: np.ndarray | None = None

    def arrays(self):
        """Returns the fields as a dict of arrays, from which `Exemplars` can be made again."""
        fields = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        return {name: np.asarray(value) for name, value in fields.items() if value is not None}

    def covered_by(self, results: dict) -> Self:
        """Selects the strongest images, and those of labels on clusters.

        Args:
            results: `{block: SHPResult}`, whose threshold may be above that of the search.

        Returns:
            `Exemplars` of fewer rows and images.
        """
        on_cluster = [
            any(unit in cluster for cluster in results[block].clusters[head])
            for block, head, unit in zip(self.block, self.head, self.unit, strict=True)
        ]
        kept = self.strongest | np.array(on_cluster, bool)
        used, image = np.unique(self.image[kept], return_inverse=True)
        rows = ("block", "head", "unit", "response", "strongest", "maps")
        chosen = {
            name: getattr(self, name)[kept] for name in rows if getattr(self, name) is not None
        }
        return dataclasses.replace(
            self, images=self.images[used], labels=self.labels[used], image=image, **chosen
        )


def find_exemplars(model, readouts, dataset, results, per_head=6, batch_size=256, verbose="auto"):
    """Finds the images that excite each head most, and each label on the head's clusters.

    Args:
        model: a `CCTImageClassifier` or a `CCTTextClassifier` with a preprocessor.
        readouts: `BlockReadouts`.
        dataset: `ImageDataset`, the images or texts of `results`.
        results: `{block: SHPResult}` of all blocks of the readouts; they say which labels are on
            clusters, how the heads are pooled and what their maxima are.
        per_head: int, images that excite a head most, whatever output unit they excite. To these
            comes one for each label on its clusters.
        batch_size: int.
        verbose: 0 prints nothing, 1 a bar, 2 lines; "auto" a bar in a terminal, else lines.

    Returns:
        An `Exemplars`; heads that are dead have no images.

    Raises:
        ValueError: if the readouts do not fit, `results` lack a block of them, all heads are dead,
            or the data are series, which have no pictures.

    Example:

    ```python
    found = find_exemplars(classifier, readouts, test_data, results)
    found.images[found.image[found.head == 3]]  # those of head 3
    ```
    """
    if missing := sorted(set(readouts.blocks) - set(results)):
        raise InputError(f"There are no results of some blocks. Received: readouts of {missing}")
    is_text = getattr(dataset, "is_text", False)
    if not is_text and len(dataset.image_shape) != 3:
        raise InputError(
            "Images and texts can be shown, series cannot. "
            f"Received: {type(dataset).__name__} of shape {dataset.image_shape}"
        )
    pooling = results[readouts.blocks[0]].pooling
    search = _Search(model, readouts.blocks, (pooling,))
    best = search.run(readouts, dataset, results, batch_size, verbose)
    rows = []
    for block in readouts.blocks:
        alive = np.flatnonzero(~results[block].dead)
        for head in alive.tolist():
            chosen = best[block].of_head(head, results[block].clusters[head], per_head)
            rows += [(block, head, *each) for each in chosen]
    if not rows:
        raise InputError("Nothing excites heads that are dead. Received: results with no others")
    block, head, unit, index, response, strongest = (
        np.array(column) for column in zip(*rows, strict=True)
    )
    used, image = np.unique(index, return_inverse=True)
    images = np.asarray(dataset.load(used))
    grid = tuple(model.backbone.position_embedding_layer.grid_shape)
    maps = _maps(model, readouts, pooling, images, block, head, image)
    if is_text:
        shown = np.array([" ".join(model.preprocessor.words(text)) for text in images])
        grid = (model.backbone.sequence_length, 1)
    else:
        shown = np.rint(images).astype("uint8")
    return Exemplars(
        shown,
        np.asarray(dataset.labels)[used],
        block,
        head,
        unit,
        image,
        response.astype("float32"),
        strongest,
        grid,
        maps,
    )


class _Best:
    """The largest responses of a block's heads.

    Args:
        num_images, num_heads, num_labels: ints.
    """

    def __init__(self, num_images, num_heads, num_labels):
        self.response = np.full((num_heads, num_labels), -np.inf, "float32")
        self.image = np.zeros((num_heads, num_labels), "int64")
        self.strongest = np.zeros((num_images, num_heads), "float32")  # over output units
        self.strongest_unit = np.zeros((num_images, num_heads), "int64")

    def add(self, start, fields):
        """Takes the responses to the images from `start` on, `(images, heads, labels)`."""
        end = start + len(fields)
        self.strongest[start:end] = fields.max(axis=-1)
        self.strongest_unit[start:end] = fields.argmax(axis=-1)
        higher = fields.max(axis=0) > self.response
        self.image = np.where(higher, start + fields.argmax(axis=0), self.image)
        self.response = np.maximum(self.response, fields.max(axis=0))

    def of_head(self, head, clusters, count):
        """Returns `[(unit, image, response, strongest), ...]`, the largest responses first."""
        first = np.argsort(-self.strongest[:, head], kind="stable")[:count].tolist()
        pairs = {(int(self.strongest_unit[i, head]), i): self.strongest[i, head] for i in first}
        strongest = set(pairs)
        for unit in (label for cluster in clusters for label in cluster):
            pairs[unit, int(self.image[head, unit])] = self.response[head, unit]
        rows = [(*pair, float(r), pair in strongest) for pair, r in pairs.items()]
        return sorted(rows, key=lambda row: -row[2])


class _Search(HeadFields):
    """Returns the pooled outputs of the heads instead of their sums."""

    def call(self, inputs):
        heads = self.trunk(inputs["images"])
        mask = self.trunk.token_mask(inputs["images"])
        (pooling,) = self.poolings
        return {name: r.pool(heads[int(name)], pooling, mask) for name, r in self.readouts.items()}

    def run(self, readouts, dataset, results, batch_size, verbose):
        """Returns `{block: _Best}` of one pass over the data."""
        best = {}
        starts = range(0, len(dataset), batch_size)
        progress = Progress(len(starts), verbose)
        for start in starts:
            indices = np.arange(start, min(start + batch_size, len(dataset)))
            labels = np.asarray(dataset.labels)[indices]
            inputs = self._inputs(dataset.load(indices), labels, readouts.num_labels, batch_size)
            if not start:
                self._assign(readouts, inputs["images"].shape[1:])
            for name, pooled in self.predict_on_batch(inputs).items():
                block = int(name)
                fields = _fields(pooled[: len(indices)], readouts.weights[block][2], results[block])
                if block not in best:
                    best[block] = _Best(len(dataset), *fields.shape[1:])
                best[block].add(start, fields)
            progress.add()
        progress.finish()
        return best


def _fields(pooled, kernel, result):
    """Returns what each head adds to each output unit, in units of its matrix's maximum."""
    num_heads, num_labels, _ = result.class_means.shape
    pooled = pooled.reshape(len(pooled), num_heads, -1)
    fields = np.einsum("bhd,hdj->bhj", pooled, kernel.reshape(num_heads, -1, num_labels))
    maxima = np.nanmax(result.class_means, axis=(1, 2))
    return fields / np.where(result.dead, 1, maxima)[:, None]


def _maps(model, readouts, pooling, images, block, head, image):
    """Returns where heads look, `(rows, tokens)`, or None if some attention has no map.

    Of sequences `(rows, time)`.
    """
    padding = ["padding_mask"] * model.backbone.has_padding
    names = [f"block_{i}/{kind}" for i in readouts.blocks for kind in _KINDS]
    inside = model.intermediates([*names, *padding])
    tokens = np.prod(model.backbone.position_embedding_layer.grid_shape)
    found = {i: [] for i in readouts.blocks}
    for start in range(0, len(images), _MAP_BATCH):
        batch = prepared(model, images[start : start + _MAP_BATCH])
        try:
            values = inside(batch, training=False)
        except InputError:  # a kind of attention that has no scores
            return None
        mask = _to_numpy(values["padding_mask"]).astype(bool) if padding else None
        for i in readouts.blocks:
            heads, scores = (_to_numpy(values[f"block_{i}/{kind}"]) for kind in _KINDS)
            looks = head_looks(heads, scores, readouts.weights[i][0], pooling, mask)
            if looks.shape[-1] != tokens:  # at merged tokens
                return None
            found[i].append(model.backbone.over_inputs(looks, batch))
    found = {i: np.concatenate(maps) for i, maps in found.items()}
    rows = zip(block.tolist(), image.tolist(), head.tolist(), strict=True)
    return np.stack([found[i][each, h] for i, each, h in rows])


_KINDS = ("head_outputs", "attention_scores")


def head_looks(heads, scores, pool_kernel, pooling, padding_mask=None):
    """Finds where heads look: their attention, a mean over queries, weighted as a readout pools.

    Args:
        heads: head outputs `(batch, tokens, heads, head_dim)`.
        scores: attention weights `(batch, heads, tokens, keys)`.
        pool_kernel: `(heads * head_dim, 1)`, of the readout's pooling.
        pooling: `"recomputed"`, with weights of each head's own, or `"frozen"`, with those of all.
        padding_mask: boolean array `(batch, tokens)`, `False` for padding, or `None`.

    Returns:
        `(batch, heads, keys)` float32; rows of `scores` that sum to 1 give maps that sum to 1.

    Example:
        >>> maps = head_looks(np.ones((1, 2, 1, 3)), np.eye(2)[None, None], np.ones(3), "frozen")
        >>> maps.tolist()
        [[[0.5, 0.5]]]
    """
    num_heads, head_dim = heads.shape[2:]
    logits = np.sum(heads * np.reshape(pool_kernel, (num_heads, head_dim)), axis=-1)
    if pooling == "frozen":
        logits = np.repeat(logits.sum(axis=-1, keepdims=True), num_heads, axis=-1)
    if padding_mask is not None:
        logits = np.where(padding_mask[..., None], logits, -np.inf)
    weights = np.exp(logits - logits.max(axis=1, keepdims=True))
    weights /= weights.sum(axis=1, keepdims=True)
    return np.einsum("bqh,bhqk->bhk", weights, scores).astype("float32")


def _to_numpy(tensor):
    import keras

    return np.asarray(keras.ops.convert_to_numpy(tensor), "float32")
