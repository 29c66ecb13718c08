"""Randomly skips a residual branch, one decision per image."""

from __future__ import annotations

from typing import Any

import keras
from keras import ops

from lsmha_keras.arguments import number_in, plain


@keras.saving.register_keras_serializable(package="lsmha_keras")
class StochasticDepth(keras.layers.Layer):
    """Drops whole samples of a residual branch during training.

    With probability `rate` a sample becomes zero; the others are divided by `1 - rate`, so the
    expectation stays. At inference the input passes unchanged.

    Args:
        rate: float in [0, 1), probability to drop a sample.
        seed: int or `None`, seed of the decisions.
        **kwargs: base layer arguments, such as `name` and `dtype`.

    Call arguments:
        x: tensor of shape `(batch, ...)`.
        training: bool or `None`, whether samples are dropped.

    Returns:
        A tensor of the shape and dtype of `x`.

    Raises:
        ValueError: if `rate` is out of range.

    Example:

    ```python
    branch = np.ones((8, 64, 128), "float32")
    lsmha_keras.StochasticDepth(0.1)(branch, training=True)
    ```

    References:
        - [Huang et al., 2016](https://arxiv.org/abs/1603.09382)
    """

    def __init__(self, rate: float, seed: int | None = None, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.supports_masking = True
        self.rate = number_in("[0, 1)", "rate", rate)
        self.seed = plain(seed)
        if self.rate > 0:
            self.seed_generator = keras.random.SeedGenerator(self.seed)
        self.built = True

    def call(self, x, training=None):
        if not training or self.rate == 0:
            return x
        noise_shape = (ops.shape(x)[0],) + (1,) * (len(x.shape) - 1)
        return keras.random.dropout(x, self.rate, noise_shape, seed=self.seed_generator)

    def compute_output_shape(self, input_shape):
        return tuple(input_shape)

    def get_config(self):
        return {**super().get_config(), "rate": self.rate, "seed": self.seed}
