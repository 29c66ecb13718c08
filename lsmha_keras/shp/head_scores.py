"""Classical scores of heads, to compare with single-head performance."""

import keras
import numpy as np
from keras import ops

from lsmha_keras.data.labelled import ImageBatches, class_labels
from lsmha_keras.errors import InputError
from lsmha_keras.layers.transformer_block import TransformerBlock
from lsmha_keras.progress import Progress
from lsmha_keras.shp.head_outputs import check_blocks
from lsmha_keras.shp.statistics import spearman


class BlockHeadScores(keras.Model):
    """Scores of the heads of one transformer block of a classifier, image by image.

    The tokens that enter the block are the input, so that the layers before it run once however
    many heads are masked.

    Args:
        classifier: a `CCTImageClassifier`; it runs in inference mode.
        block: int, index of a transformer block.

    Call arguments:
        inputs: dict of `"tokens"`, `(batch, tokens, hidden_dim)`, which enter the block, and
            `"labels"`, `(batch,)` integers.

    Returns:
        A dict of `(batch, heads)` float32 tensors: `"accuracy_drop"`, 1 where masking the head
        makes a right answer wrong, -1 where it makes a wrong answer right, else 0;
        `"mask_gradient"`, the absolute derivative of the cross-entropy by the head's mask at 1;
        `"attention_entropy"` and `"attention_distance"`, see the functions of these names.

    References:
        - [Michel et al., 2019](https://arxiv.org/abs/1905.10650), section 4.1, `mask_gradient`
    """

    def __init__(self, classifier, block):
        super().__init__(name=f"block_{block}_head_scores")
        self.classifier = classifier
        self.block = block
        backbone = classifier.backbone
        self.num_heads = backbone.blocks[block].num_heads
        grid_shape = backbone.position_embedding_layer.grid_shape
        self.token_distances = token_distances(grid_shape, backbone.image_shape[:2])
        self.built = True

    def call(self, inputs):
        tokens, labels = inputs["tokens"], ops.cast(inputs["labels"], "int32")
        block = self.classifier.backbone.blocks[self.block]
        attention_scores = block(tokens, training=False, return_attention_scores=True)[1]
        return {
            "accuracy_drop": self._accuracy_drop(tokens, labels),
            "mask_gradient": self._mask_gradient(tokens, labels),
            "attention_entropy": attention_entropy(attention_scores),
            "attention_distance": attention_distance(attention_scores, self.token_distances),
        }

    def _outputs(self, tokens, head_mask):
        """What the classifier gives, float32, from the tokens that enter the block."""
        classifier = self.classifier
        block, *later = classifier.backbone.blocks[self.block :]
        tokens = block(tokens, training=False, head_mask=head_mask)
        for layer in later:
            tokens = layer(tokens, training=False)
        pooled = classifier.pooler(classifier.backbone.layer_norm(tokens))
        return ops.cast(classifier.output_dense(pooled), "float32")

    def _accuracy_drop(self, tokens, labels):
        def is_right(head_mask):
            answers = ops.argmax(self._outputs(tokens, head_mask), axis=-1)
            return ops.cast(ops.equal(ops.cast(answers, "int32"), labels), "float32")

        # One head after the other: memory does not grow with their number.
        masked = ops.map(is_right, 1.0 - ops.eye(self.num_heads))  # (heads, batch)
        return is_right(ops.ones((self.num_heads,)))[:, None] - ops.transpose(masked)

    def _mask_gradient(self, tokens, labels):
        is_linear = keras.activations.get(self.classifier.activation) is keras.activations.linear

        def loss(head_mask):
            outputs = self._outputs(tokens, head_mask)
            return ops.sum(
                ops.sparse_categorical_crossentropy(labels, outputs, from_logits=is_linear)
            )

        # With a mask for each image, the gradient of the summed loss holds each image's own.
        return ops.abs(_gradient(loss, ops.ones((ops.shape(tokens)[0], self.num_heads))))


def attention_entropy(attention_scores):
    """Entropy of the attention over keys, in nats, as a mean over queries.

    Args:
        attention_scores: tensor `(batch, heads, queries, keys)` whose rows sum to 1.

    Returns:
        A float32 tensor `(batch, heads)`: 0 if every query looks at one key, log of the number of
        keys if it looks at all alike.

    Example:

    ```python
    attention_entropy(np.full((1, 1, 4, 4), 0.25, "float32"))  # [[1.386]]
    ```
    """
    weights = ops.cast(attention_scores, "float32")
    logarithms = ops.log(ops.maximum(weights, np.finfo("float32").tiny))  # 0 log 0 is 0
    return ops.mean(-ops.sum(weights * logarithms, axis=-1), axis=-1)


def attention_distance(attention_scores, distances):
    """Distance between a query's token and the tokens it looks at, as a mean over queries.

    Args:
        attention_scores: tensor `(batch, heads, tokens, tokens)` whose rows sum to 1.
        distances: array `(tokens, tokens)`, see `token_distances`.

    Returns:
        A float32 tensor `(batch, heads)` in the unit of `distances`.

    Example:

    ```python
    distances = token_distances(grid_shape=(8, 8), image_size=(32, 32))
    attention_distance(np.eye(64)[None, None], distances)  # [[0.]]
    ```

    References:
        - [Dosovitskiy et al., 2021](https://arxiv.org/abs/2010.11929), appendix D.7
    """
    weights = ops.cast(attention_scores, "float32")
    distances = ops.convert_to_tensor(distances)
    return ops.mean(ops.sum(weights * distances, axis=-1), axis=-1)


def token_distances(grid_shape, image_size):
    """Euclidean distances between the tokens of a grid laid over an image.

    Args:
        grid_shape: `(grid_height, grid_width)`; tokens are counted row by row.
        image_size: `(height, width)` of the image in pixels.

    Returns:
        A float32 array `(tokens, tokens)` in pixels.

    Example:
        >>> token_distances((1, 3), (4, 12))[0]
        array([0., 4., 8.], dtype=float32)
    """
    steps = np.array(image_size) / np.array(grid_shape)
    places = np.indices(grid_shape).reshape(2, -1).T * steps  # (tokens, 2)
    return np.linalg.norm(places[:, None] - places[None], axis=-1).astype("float32")


def _gradient(function, x):
    """Returns the gradient of a scalar function at `x`."""
    backend = keras.config.backend()
    if backend == "jax":
        import jax

        return jax.grad(function)(x)
    if backend == "torch":
        import torch

        with torch.enable_grad():  # `predict` switches it off
            x = x.detach().requires_grad_()
            return torch.autograd.grad(function(x), x)[0]
    import tensorflow as tf

    with tf.GradientTape(watch_accessed_variables=False) as tape:
        tape.watch(x)
        value = function(x)
    return tape.gradient(value, x)


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
                raise InputError(
                    f"`coverage` must have a value for each of the {len(values)} heads of block "
                    f"{block}. Received: {coverage.get(block)}"
                )
    return {
        block: {name: spearman(values, coverage[block]) for name, values in by_name.items()}
        for block, by_name in scores.items()
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
