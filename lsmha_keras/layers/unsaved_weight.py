"""A weight that belongs to a training and not to a model."""

import keras


class UnsavedWeight(keras.layers.Layer):
    """Holds a weight of ones that is not trained and not saved.

    Callbacks set it between epochs. It is a weight so that compiled training steps see it change.

    Args:
        shape: tuple of ints.
        **kwargs: base layer arguments, such as `name`.

    Attributes:
        weight: `keras.Variable`, float32, ones wherever the model was built or loaded.
    """

    def __init__(self, shape, **kwargs):
        super().__init__(dtype="float32", **kwargs)
        self.shape = shape

    def build(self, input_shape=None):
        self.weight = self.add_weight(
            shape=self.shape, initializer="ones", trainable=False, name="weight"
        )

    def assign(self, values):
        """Sets the weight."""
        self.weight.assign(values)

    def save_own_variables(self, store):
        """Saves nothing."""

    def load_own_variables(self, store):
        """Loads nothing."""
