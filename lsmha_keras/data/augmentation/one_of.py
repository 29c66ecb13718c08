"""A choice between layers."""

import keras

from lsmha_keras.data.augmentation.image_augmentation import ImageAugmentation


@keras.saving.register_keras_serializable(package="lsmha_keras")
class OneOf(ImageAugmentation):
    """Applies one of several layers to a whole batch, chosen with even odds for each batch.

    Args:
        layers: list of `ImageAugmentation` layers.
        seed: see `ImageAugmentation`.
        **kwargs: of `keras.layers.Layer`.

    Raises:
        ValueError: if there are no layers or one is of another kind.

    Example:
        >>> from lsmha_keras.data import CutMix, MixUp
        >>> OneOf([MixUp(0.8), CutMix(1.0)]).mixes_labels
        True
    """

    def __init__(self, layers, seed=None, **kwargs):
        if not layers or not all(isinstance(layer, ImageAugmentation) for layer in layers):
            raise ValueError(
                "`layers` must be a list of augmentation layers of this package. "
                f"Received: layers={layers!r}"
            )
        super().__init__(seed=seed, **kwargs)
        self.layers = list(layers)
        self.mixes_labels = any(layer.mixes_labels for layer in layers)

    def augment(self, images, labels, rng):
        return self.layers[rng.integers(len(self.layers))].augment(images, labels, rng)

    def get_config(self):
        layers = [keras.saving.serialize_keras_object(layer) for layer in self.layers]
        return {**super().get_config(), "layers": layers}

    @classmethod
    def from_config(cls, config):
        """Creates the layer, and the layers in it, from `get_config`'s dictionary.

        Args:
            config: dictionary.

        Returns:
            A `OneOf`.
        """
        layers = [keras.saving.deserialize_keras_object(layer) for layer in config["layers"]]
        return cls(**{**config, "layers": layers})
