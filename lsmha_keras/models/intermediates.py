"""A model that returns values from inside another one."""

import keras

from lsmha_keras.errors import InputError
from lsmha_keras.layers.transformer_block import TransformerBlock

# What a transformer block can return after its output, in this order.
HEAD_KINDS = ("head_outputs", "attention_scores")


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
    known = ["embedding", *kinds, "output"]
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
