"""The readout of one block."""

import keras
from keras import ops

from lsmha_keras.layers.sequence_pooling import SequencePooling


class HeadReadout(keras.layers.Layer):
    """Sequence pooling over all heads, then a linear layer without bias.

    Args:
        num_labels: int.
        seed: int, of the random initial weights.
        **kwargs: base layer arguments, such as `name`.

    Call arguments:
        heads: head outputs `(batch, tokens, heads, head_dim)`.

    Returns:
        Logits `(batch, num_labels)`.
    """

    def __init__(self, num_labels, seed=0, **kwargs):
        super().__init__(dtype="float32", **kwargs)
        # Seeded: an initializer without a seed would draw from Python's global random numbers.
        pool, linear = (
            keras.initializers.TruncatedNormal(stddev=0.02, seed=2 * seed + i) for i in range(2)
        )
        self.pooler = SequencePooling(pool, dtype="float32", name="pooler")
        self.linear = keras.layers.Dense(
            num_labels, use_bias=False, kernel_initializer=linear, dtype="float32", name="linear"
        )

    def build(self, input_shape):
        batch, tokens, num_heads, head_dim = input_shape
        self.num_heads = num_heads
        self.pooler.build((batch, tokens, num_heads * head_dim))
        self.linear.build((batch, num_heads * head_dim))

    def call(self, heads):
        return self.linear(self.pool(heads, "frozen"))

    def pool(self, heads, pooling):
        """Pools over tokens, with one set of weights for all heads or one for each.

        Args:
            heads: head outputs `(batch, tokens, heads, head_dim)`.
            pooling: `"frozen"`: the weights of the whole readout; `"recomputed"`: each head's own,
                as if the others were zero. A bias shifts all tokens alike and plays no part.

        Returns:
            The heads' pooled outputs next to each other, `(batch, heads * head_dim)`.
        """
        batch, tokens, num_heads, head_dim = ops.shape(heads)
        if pooling == "frozen":
            return self.pooler(ops.reshape(heads, (batch, tokens, num_heads * head_dim)))
        kernel = ops.reshape(self.pooler.scores.kernel, (num_heads, head_dim))
        weights = ops.softmax(ops.sum(heads * kernel, axis=-1), axis=1)  # (batch, tokens, heads)
        pooled = ops.sum(weights[..., None] * heads, axis=1)  # (batch, heads, head_dim)
        return ops.reshape(pooled, (batch, num_heads * head_dim))
