"""Runs the blocks of a backbone in turn, and returns values from inside of it."""

import keras
import numpy as np
from keras import ops

from lsmha_keras.errors import InputError
from lsmha_keras.layers.token_reduction import put_back
from lsmha_keras.layers.transformer_block import TransformerBlock

# What a transformer block can return after its output, in this order.
HEAD_KINDS = ("head_outputs", "attention_scores")


class BlockWalk:
    """Runs a backbone's blocks one after the other.

    Beside the tokens, blocks hand on which of them are padding, positions, if each adds its own
    (LaPE), and tokens that skip some blocks. Whatever runs the blocks of a backbone does so through
    a walk.

    Args:
        backbone: `CCTBackbone`.
        first: int, the block to begin with. Defaults to `0`.
        padding_mask: optional boolean tensor `(batch, tokens)`, `False` for padding. `embed` finds
            it; a walk that begins with tokens, of sequences with padding, must be given it.

    Raises:
        ValueError: if tokens that enter the first block are not all there are, as others skip it;
            in `run`, if sequences may have padding and it is not known where.

    Example:

    ```python
    from lsmha_keras.models.block_walk import BlockWalk

    backbone = lsmha_keras.CCTBackbone((16, 16, 3), num_layers=2)
    walk = BlockWalk(backbone)
    tokens = walk.embed(np.zeros((1, 16, 16, 3), "float32"), training=False)
    for i in range(len(backbone.blocks)):
        tokens = walk.run(i, tokens, training=False)
    ```
    """

    def __init__(self, backbone, first=0, padding_mask=None):
        self.backbone = backbone
        self._position, self._next_norm = None, 0
        self._ends = dict(skips(backbone))
        self.padding_mask = padding_mask  # which all blocks get
        self._skipping = None  # the tokens, their order, and the block after which they return
        for start, end in self._ends.items():
            if start < first <= end:
                raise InputError(
                    "Tokens that skip a block are no part of what enters it, so it cannot be run "
                    f"on its own: choose blocks up to {start} or from {end + 1} on. Received: "
                    f"block {first}, which tokens skip from block {start} to block {end}"
                )

    def embed(self, images, **arguments):
        """Returns the tokens that enter the first block.

        Args:
            images: preprocessed images `(batch, height, width, channels)`.
            **arguments: of the layers' calls: `training`.
        """
        backbone = self.backbone
        tokens = backbone.embed(images, **arguments)
        self.padding_mask = backbone.token_mask(images)
        if backbone.position_embedding_join == "input":
            tokens = backbone.position_embedding_layer(tokens)
        return backbone.embedding_dropout(tokens, **arguments)

    def run(self, block, tokens, **arguments):
        """Calls a block, the next in turn.

        Args:
            block: int, its index.
            tokens: what the block before returned, `(batch, tokens, channels)`.
            **arguments: of the block's call, such as `return_head_outputs`.

        Returns:
            What the block returns; tokens that skipped blocks up to this one are back.
        """
        if block in self.backbone.position_norms:
            arguments["position"] = self._position_of(block, tokens)
        if self.padding_mask is not None:
            arguments["padding_mask"] = self.padding_mask
        elif self.backbone.has_padding:
            # Attention would count padding as words, and nothing else would tell.
            raise InputError(
                "Blocks of sequences with padding must know where it is: give `padding_mask`, as "
                "`backbone.token_mask` finds it. Received: padding_mask=None"
            )
        if block in self._ends:
            arguments["return_reduction"] = True
        outputs = self.backbone.blocks[block](tokens, **arguments)
        outputs = list(outputs) if isinstance(outputs, (tuple, list)) else [outputs]
        if block in self._ends:
            reduction = outputs.pop()
            self._skipping = reduction["skipped"], reduction["order"], self._ends[block]
        if self._skipping and self._skipping[2] == block:
            skipped, order, _ = self._skipping
            outputs[0], self._skipping = put_back(outputs[0], skipped, order), None
        return tuple(outputs) if len(outputs) > 1 else outputs[0]

    def _position_of(self, block, tokens):
        """What a block adds to its tokens: the position of the block before, normalised anew."""
        if self._position is None:
            self._position = self.backbone.position_embedding_layer(tokens)
        for index, norm in self.backbone.position_norms.items():
            if self._next_norm <= index <= block:
                self._position = norm(self._position)
        self._next_norm = block + 1
        return self._position


def skips(backbone):
    """Lists where tokens skip blocks: pairs of the block that they leave and the last they skip."""
    return [
        (i, min(i + backbone.token_return_after, len(backbone.blocks) - 1))
        for i, block in enumerate(backbone.blocks)
        if getattr(block, "token_keep", 1) < 1 and block.token_reduction == "skip"
    ]


class Intermediates(keras.Model):
    """Returns named values computed inside another model, whose layers it shares.

    Made by `CCTBackbone.intermediates` and `CCTImageClassifier.intermediates`. It is a subclassed
    model because a functional model in Keras cannot call one layer twice with different numbers of
    outputs.

    Args:
        source: model whose layers and weights are used.
        names: list of the names of the values to return.
        head_masks: `{block index: mask}` for the heads of the source.

    Call arguments:
        images: preprocessed images `(batch, height, width, channels)`.

    Returns:
        A dict from name to tensor.
    """

    def __init__(self, source, names, head_masks=None):
        super().__init__(name=f"{source.name}_intermediates")
        self.source = source
        self.names = list(names)
        self.head_masks = dict(head_masks or {})
        self.built = True

    def call(self, images):
        values = self.source.trace(images, self.names, self.head_masks)
        return {name: values[name] for name in self.names}


def prepared(model, inputs):
    """Brings raw images, texts or series to what a model is called on.

    Args:
        model: `CCTImageClassifier`, `CCTBackbone`, or another Keras model, which takes float32.
        inputs: `(batch, ...)` array.

    Returns:
        A NumPy array: float32 of images and series, int32 of ids.

    Raises:
        ValueError: if the model has a preprocessor, or takes sequences, and they do not fit it.
    """
    is_task = hasattr(model, "preprocess_samples")
    # Sequences are checked by a classifier, even if it has no preprocessor.
    if not is_task or (model.preprocessor is None and len(model.image_shape) == 3):
        return np.asarray(inputs, "float32")
    return np.asarray(ops.convert_to_numpy(model.preprocess_samples(inputs)))


def check_intermediates(backbone, names, head_masks):
    """Checks the arguments of `CCTBackbone.intermediates`.

    Args:
        backbone: `CCTBackbone`.
        names: list of names.
        head_masks: dict with block indices as keys.

    Raises:
        ValueError: if a name is unknown or a mask is not for a transformer block.
    """
    kinds = {}
    for i, block in enumerate(backbone.blocks):
        heads = isinstance(block, TransformerBlock)
        extras = HEAD_KINDS if heads else ()
        kinds.update({f"block_{i}/{kind}": heads for kind in ("output", *extras)})
    known = ["embedding", *kinds, "output"] + ["padding_mask"] * backbone.has_padding
    if unknown := [name for name in names if name not in known]:
        raise InputError(
            f"Unknown intermediates. This backbone has {known}; only transformer blocks "
            f"have heads. Received: names={unknown}"
        )
    for i in head_masks:
        if not kinds.get(f"block_{i}/output"):
            raise InputError(
                "`head_masks` must be keyed by the indices of transformer blocks. "
                f"Received: block {i}"
            )
