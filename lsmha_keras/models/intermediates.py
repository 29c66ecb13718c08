"""A model that returns values from inside another one."""

import keras


class Intermediates(keras.Model):
    """Returns named values computed inside another model, whose layers it shares.

    Made by `CCTBackbone.intermediates` and `CCTImageClassifier.intermediates`. It is a subclassed
    model because Keras's functional models cannot call one layer twice with different numbers of
    outputs.

    Args:
        source: the model whose layers and weights are used.
        names: list of the names of the values wanted.
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
