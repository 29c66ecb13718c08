"""Transformer encoder block with the normalisation of the reference CCT."""

import keras
from keras import ops

from lsmha_keras.layers.large_scale_multi_head_attention import LargeScaleMultiHeadAttention
from lsmha_keras.layers.stochastic_depth import StochasticDepth


@keras.saving.register_keras_serializable(package="lsmha_keras")
class TransformerBlock(keras.layers.Layer):
    """Large-scale multi-head attention and a two-layer perceptron, both residual.

    As in the reference, the second normalisation acts on the residual stream itself:

    - `x = x + drop_path(attention(LN(x)))`
    - `x = LN(x)`
    - `x = x + drop_path(W2 gelu(W1 x))`, with the exact GELU

    Args:
        num_heads: int, number of attention heads.
        mlp_dim: int, width of the perceptron's hidden layer.
        head_dim: int or `None`, width of one head; `None` means token width // `num_heads`.
            Defaults to `None`.
        dropout_rate: float in [0, 1), dropout after both projections and inside the perceptron.
            Defaults to `0.0`.
        attention_dropout: float in [0, 1), dropout on the attention weights. Defaults to `0.0`.
        stochastic_depth_rate: float in [0, 1), probability to skip a branch for a sample in
            training. Defaults to `0.0`.
        use_qkv_bias: bool, whether queries, keys and values have a bias. Defaults to `False`.
        layer_norm_epsilon: float. Defaults to `1e-5`.
        **kwargs: base layer arguments, such as `name` and `dtype`.

    Call arguments:
        x: tokens, float tensor of shape `(batch, tokens, channels)`.
        training, head_mask, padding_mask, return_head_outputs, return_attention_scores: as in
            `LargeScaleMultiHeadAttention`.

    Returns:
        The output, of the shape of `x`; with flags set, a tuple of the output, the head outputs
        `(batch, tokens, num_heads, head_dim)` and the attention weights
        `(batch, num_heads, tokens, tokens)`, as asked for.

    Raises:
        ValueError: if an argument is out of range or `num_heads` does not divide the token width
            while `head_dim` is `None`.

    Example:

    ```python
    block = lsmha_keras.TransformerBlock(num_heads=16, mlp_dim=128)
    block(np.zeros((2, 64, 128), "float32"))  # (2, 64, 128)
    ```

    References:
        - [Hassani et al., 2021](https://arxiv.org/abs/2104.05704)
    """

    def __init__(
        self,
        num_heads,
        mlp_dim,
        head_dim=None,
        dropout_rate=0.0,
        attention_dropout=0.0,
        stochastic_depth_rate=0.0,
        use_qkv_bias=False,
        layer_norm_epsilon=1e-5,
        **kwargs,
    ):
        super().__init__(**kwargs)
        if not isinstance(mlp_dim, int) or mlp_dim < 1:
            raise ValueError(f"`mlp_dim` must be a positive int. Received: mlp_dim={mlp_dim}")
        self.num_heads = num_heads
        self.mlp_dim = mlp_dim
        self.head_dim = head_dim
        self.dropout_rate = dropout_rate
        self.attention_dropout = attention_dropout
        self.stochastic_depth_rate = stochastic_depth_rate
        self.use_qkv_bias = use_qkv_bias
        self.layer_norm_epsilon = layer_norm_epsilon

        dtype = self.dtype_policy
        self.attention_norm = keras.layers.LayerNormalization(
            epsilon=layer_norm_epsilon, dtype=dtype, name="attention_norm"
        )
        self.attention = LargeScaleMultiHeadAttention(
            num_heads,
            head_dim=head_dim,
            dropout=attention_dropout,
            use_qkv_bias=use_qkv_bias,
            dtype=dtype,
            name="attention",
        )
        self.mlp_norm = keras.layers.LayerNormalization(
            epsilon=layer_norm_epsilon, dtype=dtype, name="mlp_norm"
        )
        self.mlp_hidden = keras.layers.Dense(
            mlp_dim,
            kernel_initializer=keras.initializers.TruncatedNormal(stddev=0.02),
            dtype=dtype,
            name="mlp_hidden",
        )
        self.dropout = keras.layers.Dropout(dropout_rate, dtype=dtype, name="dropout")
        self.drop_path = StochasticDepth(stochastic_depth_rate, dtype=dtype, name="drop_path")

    def build(self, input_shape):
        self.attention_norm.build(input_shape)
        self.attention.build(input_shape)
        self.mlp_norm.build(input_shape)
        self.mlp_hidden.build(input_shape)
        self.mlp_output = keras.layers.Dense(
            input_shape[-1],
            kernel_initializer=keras.initializers.TruncatedNormal(stddev=0.02),
            dtype=self.dtype_policy,
            name="mlp_output",
        )
        self.mlp_output.build((*input_shape[:-1], self.mlp_dim))

    def call(
        self,
        x,
        training=None,
        head_mask=None,
        padding_mask=None,
        return_head_outputs=False,
        return_attention_scores=False,
    ):
        attended = self.attention(
            self.attention_norm(x),
            training=training,
            head_mask=head_mask,
            padding_mask=padding_mask,
            return_head_outputs=return_head_outputs,
            return_attention_scores=return_attention_scores,
        )
        extras = ()
        if return_head_outputs or return_attention_scores:
            attended, *extras = attended
        x = x + self._drop(attended, training)
        x = self.mlp_norm(x)
        hidden = ops.gelu(self.mlp_hidden(x), approximate=False)
        hidden = self.mlp_output(self.dropout(hidden, training=training))
        x = x + self._drop(hidden, training)
        return (x, *extras) if extras else x

    def _drop(self, branch, training):
        return self.drop_path(self.dropout(branch, training=training), training=training)

    def compute_output_shape(self, input_shape):
        return tuple(input_shape)

    def compute_output_spec(self, x, **kwargs):
        return self.attention.compute_output_spec(x, **kwargs)

    def get_config(self):
        return {
            **super().get_config(),
            "num_heads": self.num_heads,
            "mlp_dim": self.mlp_dim,
            "head_dim": self.head_dim,
            "dropout_rate": self.dropout_rate,
            "attention_dropout": self.attention_dropout,
            "stochastic_depth_rate": self.stochastic_depth_rate,
            "use_qkv_bias": self.use_qkv_bias,
            "layer_norm_epsilon": self.layer_norm_epsilon,
        }
