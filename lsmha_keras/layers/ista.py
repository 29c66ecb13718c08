"""One step of sparse coding in place of a perceptron, as in CRATE."""

import keras
from keras import ops

from lsmha_keras.layers.weight_arguments import initial_values

_STEP, _THRESHOLD = 0.1, 0.1


@keras.saving.register_keras_serializable(package="lsmha_keras")
class ISTAStep(keras.layers.Layer):
    """What a step of ISTA adds to tokens, with a learnt dictionary.

    `0.1 (D^T x - D^T D x) - 0.01`: a step of size 0.1 towards tokens that are a sparse code of
    themselves. A ReLU of the sum makes it the code. For `T` tokens of width `C`: parameters `C^2`,
    multiply-adds `2 T C^2`.

    Args:
        regularizer: regularizer of the dictionary.
        constraint: constraint on it.
        **kwargs: base layer arguments, such as `name` and `dtype`.

    Call arguments:
        x: tokens, float tensor of shape `(batch, tokens, channels)`.

    Returns:
        A tensor of the shape of `x`.

    References:
        - [Yu et al., 2023](https://arxiv.org/abs/2306.01129), section 2.4
    """

    def __init__(self, regularizer=None, constraint=None, **kwargs):
        super().__init__(**kwargs)
        self.regularizer = keras.regularizers.get(regularizer)
        self.constraint = keras.constraints.get(constraint)

    def build(self, input_shape):
        channels = input_shape[-1]
        self.dictionary = self.add_weight(
            name="dictionary",
            shape=(channels, channels),
            initializer=initial_values(keras.initializers.HeUniform()),
            regularizer=self.regularizer,
            constraint=self.constraint,
        )

    def call(self, x):
        # Tokens are rows: D x is x D^T. Both products with D^T in one.
        error = x - ops.matmul(x, ops.transpose(self.dictionary))
        return _STEP * (ops.matmul(error, self.dictionary) - _THRESHOLD)

    def count_multiply_adds(self, tokens):
        """Returns the multiply-adds for one sample, an int: `2 T C^2`."""
        return 2 * tokens * self.dictionary.shape[0] ** 2

    def compute_output_shape(self, input_shape):
        return tuple(input_shape)

    def get_config(self):
        return {
            **super().get_config(),
            "regularizer": keras.regularizers.serialize(self.regularizer),
            "constraint": keras.constraints.serialize(self.constraint),
        }
