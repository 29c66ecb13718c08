"""Attention maps of a classifier on some images, and the derivatives of logits by them."""

import dataclasses

import numpy as np
from keras import ops

from lsmha_keras.errors import InputError
from lsmha_keras.layers.transformer_block import TransformerBlock
from lsmha_keras.layers.weight_changes import changing_weights
from lsmha_keras.models.block_walk import BlockWalk
from lsmha_keras.shp.head_outputs import gradient
from lsmha_keras.surgery.convert_attention import convert_attention

# What to do about a kind of attention that cannot be traced.
_WAY_OUT = "`method='occlusion'` works with every kind"


@dataclasses.dataclass(frozen=True)
class AttentionTrace:
    """What a classifier attends to on a batch of images; float64 arrays.

    Attributes:
        maps: dict from the index of a transformer block, ascending, to its attention weights
            `(batch, heads, queries, keys)`.
        pooling: `(batch, tokens)`, weights of the sequence pooling, of LAMA pooling the mean over
            its heads; each row sums to 1, with nothing on padding.
        gradients: dict like `maps`: derivatives of the label's logit by the weights; `None` without
            labels.
        pooling_gradients: `(batch, tokens)`, its derivatives by the pooling's weights, or `None`;
            of LAMA pooling the mean over its heads, weighted by their own weights.
    """

    maps: dict
    pooling: np.ndarray
    gradients: dict | None = None
    pooling_gradients: np.ndarray | None = None


def trace_attention(model, images, labels=None):
    """Runs a classifier and keeps its attention weights.

    Args:
        model: `CCTImageClassifier`; it runs in inference mode, uncompiled.
        images: preprocessed images `(batch, height, width, channels)`.
        labels: `(batch,)` ints, the classes whose logits are derived; `None` derives none.

    Returns:
        An `AttentionTrace`.

    Raises:
        ValueError: if the model has no transformer block, one of its kinds of attention has no
            scores, or with labels computes them otherwise than as one map per head. Maps that heads
            share count as each head's own.

    Example:

    ```python
    trace = trace_attention(classifier, classifier.preprocess_samples(images))
    trace.maps[3].shape  # (batch, heads, tokens, tokens)
    ```
    """
    indices = [i for i, b in enumerate(model.backbone.blocks) if isinstance(b, TransformerBlock)]
    if not indices:
        raise InputError(
            f"There is no attention to follow; {_WAY_OUT}. "
            "Received: a model without transformer blocks"
        )
    check_same_tokens(model.backbone, f"Maps are followed from block to block; {_WAY_OUT}")
    if labels is not None:
        model = _with_a_map_for_each_head(model, indices)
    mask = model.backbone.token_mask(ops.convert_to_tensor(images))
    run = _Run(model, indices, _tokens_before(model, indices[0], images), mask)
    maps, tokens = run.forward()
    weights = _to_numpy(model.pooler.token_weights(tokens, mask))
    weights = weights.reshape(len(weights), -1, weights.shape[-1])  # (batch, pooling heads, tokens)
    pooling = weights.mean(axis=1)
    maps = {i: _to_numpy(weights) for i, weights in zip(indices, maps, strict=True)}
    if labels is None:
        return AttentionTrace(maps, pooling)
    labels = np.asarray(labels)
    gradients = run.gradients(maps, labels)
    # The logit is linear in what the pooling returns, and that is linear in its weights.
    kernel = _to_numpy(model.output_dense.kernel)[:, labels]
    kernel = kernel.reshape(weights.shape[1], -1, len(labels))  # (pooling heads, channels, batch)
    by_weight = np.einsum("btc,mcb->bmt", _to_numpy(tokens), kernel)
    # For one pooling head these are its derivatives; for several, their products with the weights
    # add up to the logit likewise.
    products = (weights * by_weight).sum(axis=1)
    by_pooling = np.divide(products, pooling, out=np.zeros_like(products), where=pooling > 0)
    return AttentionTrace(maps, pooling, gradients, by_pooling)


def _with_a_map_for_each_head(model, indices):
    """Writes clustered heads as plain attention, which is exact; other models stay as they are."""
    kinds = {model.backbone.blocks[i].attention_kind for i in indices}
    if "clustered" in kinds and kinds <= {"clustered", "multi_head"}:
        return convert_attention(model, "multi_head")
    return model


def check_same_tokens(backbone, reason):
    """Refuses backbones whose blocks do not all see the tokens of the grid, and no others.

    Args:
        backbone: `CCTBackbone`.
        reason: str, what needs the same tokens in all blocks, for the message.

    Raises:
        ValueError: names the option and the block.
    """
    for i, block in enumerate(backbone.blocks):
        for name, none in (("token_keep", 1), ("head_tokens", 0)):
            if (value := getattr(block, name, none)) != none:
                raise InputError(
                    f"{reason}. That takes blocks that all see the same tokens. "
                    f"Received: {name}={value} in block {i}"
                )


def _tokens_before(model, block, images):
    """The tokens that enter a block, `(batch, tokens, channels)`."""
    walk = BlockWalk(model.backbone)
    tokens = walk.embed(ops.convert_to_tensor(images), training=False)
    for i in range(block):
        tokens = walk.run(i, tokens, training=False)
    return tokens


class _Run:
    """The transformer blocks and the head of a classifier, on fixed tokens.

    Args:
        model: `CCTImageClassifier`.
        indices: list of the indices of its transformer blocks.
        tokens: what enters the first of them.
        mask: boolean tensor `(batch, tokens)`, `False` for padding, or `None`.
    """

    def __init__(self, model, indices, tokens, mask):
        self.model, self.tokens, self.mask = model, tokens, mask
        self.first = indices[0]
        self.blocks = [model.backbone.blocks[i] for i in indices]

    def forward(self, offsets=None):
        """Returns the maps of the blocks and the tokens that are pooled.

        Args:
            offsets: tensor `(batch, heads of all blocks, tokens, tokens)` that is added to the
                attention weights, or `None`.
        """
        x, maps, first = self.tokens, [], 0
        walk = BlockWalk(self.model.backbone, self.first, self.mask)
        for i, block in enumerate(self.model.backbone.blocks[self.first :], self.first):
            if not isinstance(block, TransformerBlock):
                x = walk.run(i, x, training=False)
                continue
            change = None
            if offsets is not None:
                change = _AddOnce(block, offsets[:, first : first + block.num_heads])
                first += block.num_heads
            with changing_weights(change):
                x, scores = _call(walk, i, x)
            if change is not None:
                change.check()
            maps.append(scores)
        return maps, ops.cast(self.model.backbone.layer_norm(x), "float32")

    def gradients(self, maps, labels):
        """Returns the derivatives of the labels' logits by the maps, a dict like `maps`."""
        model = self.model
        chosen = ops.convert_to_tensor(np.eye(model.num_classes, dtype="float32")[labels])

        def sum_of_logits(offsets):
            pooled = model.pooler(self.forward(offsets)[1], padding_mask=self.mask)
            kernel = ops.cast(model.output_dense.kernel, "float32")
            return ops.sum(ops.matmul(ops.cast(pooled, "float32"), kernel) * chosen)

        # Images do not see each other: the derivatives of the sum are each image's own.
        num_tokens = self.tokens.shape[1]
        heads = sum(block.num_heads for block in self.blocks)
        shape = (len(labels), heads, num_tokens, num_tokens)
        found = _to_numpy(gradient(sum_of_logits, ops.zeros(shape, "float32")))
        ends = np.cumsum([block.num_heads for block in self.blocks])[:-1]
        return dict(zip(maps, np.split(found, ends, axis=1), strict=True))


class _AddOnce:
    """Adds an offset to the one set of weights that a layer computes, and refuses any other."""

    def __init__(self, block, offset):
        self.block, self.offset, self.calls = block, offset, 0

    def __call__(self, weights):
        self.calls += 1
        if tuple(weights.shape) != tuple(self.offset.shape):
            self.refuse()
        return weights + self.offset

    def check(self):
        if self.calls != 1:
            self.refuse()

    def refuse(self):
        raise InputError(
            "Derivatives by attention maps need a kind that computes one map of all tokens for "
            "each head, and uses it at once. `lsmha_keras.convert_attention(model, 'multi_head')` "
            f"makes another one of some kinds, and {_WAY_OUT}. "
            f"Received: attention={self.block.attention_kind!r}"
        )


def _call(walk, i, x):
    try:
        return walk.run(i, x, training=False, return_attention_scores=True)
    except InputError as error:
        block = walk.backbone.blocks[i]
        raise InputError(
            f"This kind of attention has no scores to follow; {_WAY_OUT}. "
            f"Received: attention={block.attention_kind!r} ({error})"
        ) from error


def _to_numpy(tensor):
    return np.asarray(ops.convert_to_numpy(ops.cast(tensor, "float32")), "float64")
