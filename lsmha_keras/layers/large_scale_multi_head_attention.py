"""Multi-head self-attention with any number of heads of any width."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Self

import keras
import numpy as np
from keras import ops

from lsmha_keras.arguments import number_in, plain, positive_int
from lsmha_keras.errors import InputError
from lsmha_keras.layers.attention_core import attention_core, joint_mask, project_heads
from lsmha_keras.layers.head_weights import HeadWeights, merged_weights
from lsmha_keras.layers.weight_arguments import (
    set_weight_arguments,
    weight_arguments,
    weight_config,
)
from lsmha_keras.types import Constraint, Initializer, Regularizer


@keras.saving.register_keras_serializable(package="lsmha_keras")
class LargeScaleMultiHeadAttention(HeadWeights, keras.layers.Layer):
    """Multi-head self-attention whose inner width is independent of the embedding width.

    With `inner = num_heads * head_dim`, one fused projection maps tokens of width `C` to queries,
    keys and values of width `inner`; each head computes

    `head_h = softmax(Q_h K_h^T / sqrt(head_dim)) V_h`

    and a second projection maps the concatenated heads back to `C`. Heads lie next to each other
    in each third of the fused kernel: head `h` owns columns `[h * head_dim, (h + 1) * head_dim)`.

    Args:
        num_heads: int, number of heads. Large-scale attention takes a number comparable with the
            number of labels.
        head_dim: int or `None`, width of one head. `None` means `C // num_heads` and demands that
            it divides. Defaults to `None`.
        dropout: float in [0, 1), dropout on the attention weights. It costs nothing at inference.
            Defaults to `0.0`.
        use_qkv_bias: bool, whether the fused projection has a bias. Defaults to `False`.
        use_output_bias: bool, whether the output projection has a bias. Defaults to `True`.
        kernel_initializer: initializer of both kernels. Defaults to a truncated normal of standard
            deviation 0.02, as in the reference CCT.
        seed: int or `None`, seed of the dropout.
        bias_initializer: initializer of the biases. Defaults to `"zeros"`.
        kernel_regularizer, bias_regularizer: regularizers of both kernels and of the biases.
        kernel_constraint, bias_constraint: constraints on them.
        **kwargs: base layer arguments, such as `name`, `dtype` and `activity_regularizer`.

    Call arguments:
        x: tokens, float tensor of shape `(batch, tokens, C)`.
        training: bool or `None`, whether dropout is active.
        head_mask: optional tensor of shape `(num_heads,)` or `(batch, num_heads)` with values in
            [0, 1]; each head's output is multiplied by its entry.
        head_scale: optional tensor of the same shapes with any finite values, by which each head's
            output is multiplied too: -1 turns what a head writes around, 2 amplifies it.
        padding_mask: optional boolean tensor of shape `(batch, tokens)`, `False` for tokens that
            no other token may attend to.
        mask, x_mask: the same, filled in by Keras with the mask of `x`, as `keras.layers.Masking`
            or an `Embedding` with `mask_zero=True` makes it. Tokens count that no mask leaves out.
        return_head_outputs: bool, whether to return the head outputs too.
        return_attention_scores: bool, whether to return the attention weights too.

    Returns:
        The output, `(batch, tokens, C)` in the compute dtype. With flags set, a tuple of the
        output, then the head outputs `(batch, tokens, num_heads, head_dim)` before the output
        projection and after mask and scale, then the attention weights
        `(batch, num_heads, tokens, tokens)`.

    Raises:
        ValueError: if an argument is out of range, if `num_heads` does not divide `C` while
            `head_dim` is `None`, or if an input has the wrong shape.

    Example:

    ```python
    layer = lsmha_keras.LargeScaleMultiHeadAttention(num_heads=25, head_dim=10)
    tokens = np.random.normal(size=(2, 64, 256)).astype("float32")
    output, heads = layer(tokens, return_head_outputs=True)  # (2, 64, 256), (2, 64, 25, 10)
    ```

    References:
        - [Gross et al., 2025](https://arxiv.org/abs/2506.23832), large-scale multi-head attention
        - [Vaswani et al., 2017](https://arxiv.org/abs/1706.03762), section 3.2
    """

    # Whether there are attention weights that depend on the tokens, to be asked for.
    has_scores = True

    def __init__(
        self,
        num_heads: int,
        head_dim: int | None = None,
        dropout: float = 0.0,
        use_qkv_bias: bool = False,
        use_output_bias: bool = True,
        kernel_initializer: Initializer = None,
        seed: int | None = None,
        bias_initializer: Initializer = "zeros",
        kernel_regularizer: Regularizer = None,
        bias_regularizer: Regularizer = None,
        kernel_constraint: Constraint = None,
        bias_constraint: Constraint = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.supports_masking = True
        self.num_heads = positive_int("num_heads", num_heads)
        self.head_dim = None if head_dim is None else positive_int("head_dim", head_dim)
        self.dropout = number_in("[0, 1)", "dropout", dropout)
        self.use_qkv_bias = plain(use_qkv_bias)
        self.use_output_bias = plain(use_output_bias)
        set_weight_arguments(self, default_stddev=0.02, **locals())
        self.seed = plain(seed)
        if self.dropout > 0:
            self.seed_generator = keras.random.SeedGenerator(self.seed)

    def build(self, input_shape):
        if len(input_shape) != 3 or input_shape[-1] is None:
            raise InputError(
                f"`{type(self).__name__}` expects tokens of shape (batch, tokens, channels) "
                f"with known channels. Received: input_shape={input_shape}"
            )
        hidden_dim = input_shape[-1]
        if self.head_dim is None and hidden_dim % self.num_heads:
            raise InputError(
                "`num_heads` must divide the width of the tokens when `head_dim` is `None`; give "
                f"`head_dim` to choose the width of a head freely. Received: "
                f"num_heads={self.num_heads}, token width {hidden_dim}"
            )
        self._head_dim = self.head_dim or hidden_dim // self.num_heads
        inner_dim = self.num_heads * self._head_dim
        self.build_heads(tuple(input_shape))
        self.projection = self.make_dense(
            "projection", hidden_dim, (*input_shape[:-1], inner_dim), self.use_output_bias
        )

    def build_heads(self, input_shape):
        """Makes the weights that `attend` needs; a kind of attention of its own overrides both.

        Args:
            input_shape: `(batch, tokens, C)`; `self.width` is known.
        """
        self.qkv = self.make_dense("qkv", 3 * self.num_heads * self.width, input_shape)

    def make_dense(
        self, name: str, units: int, input_shape: Sequence[int | None], use_bias: bool | None = None
    ) -> Any:
        """Makes a built `keras.layers.Dense` with this layer's arguments of weights.

        Args:
            name: str.
            units: int.
            input_shape: shape of what it is called on; the last entry is known.
            use_bias: bool; `None` for `use_qkv_bias`.
        """
        dense = keras.layers.Dense(
            units,
            use_bias=self.use_qkv_bias if use_bias is None else use_bias,
            dtype=self.dtype_policy,
            name=name,
            **weight_arguments(self, "kernel", "bias"),
        )
        dense.build(input_shape)
        return dense

    def call(
        self,
        x,
        training=None,
        head_mask=None,
        padding_mask=None,
        return_head_outputs=False,
        return_attention_scores=False,
        mask=None,
        x_mask=None,
        head_scale=None,
    ):
        batch, tokens = ops.shape(x)[:2]
        heads, scores = self.attend(
            x,
            joint_mask(x, padding_mask=padding_mask, mask=mask, x_mask=x_mask),
            training,
            return_attention_scores,
        )
        heads = ops.swapaxes(heads, 1, 2)  # (batch, tokens, heads, head_dim)
        if head_mask is not None:
            _check_head_mask(head_mask)
            heads = heads * self._per_head("head_mask", head_mask, heads.dtype)
        if head_scale is not None:
            heads = heads * self._per_head("head_scale", head_scale, heads.dtype)
        # (batch, tokens, inner) -> (batch, tokens, C)
        flat = ops.reshape(heads, (batch, tokens, self.num_heads * self._head_dim))
        outputs = (self.projection(flat),)
        outputs += (heads,) if return_head_outputs else ()
        outputs += (scores,) if return_attention_scores else ()
        return outputs if len(outputs) > 1 else outputs[0]

    def attend(self, x, padding_mask, training, return_attention_scores):
        """Computes the heads.

        Args:
            x: tokens, `(batch, tokens, C)`.
            padding_mask: boolean tensor `(batch, tokens)` or `None`.
            training: bool or `None`.
            return_attention_scores: bool.

        Returns:
            A pair: head outputs `(batch, heads, tokens, head_dim)`, gated if this kind has gates,
            and the attention weights `(batch, heads, tokens, tokens)`, or `None` if nobody asked.
        """
        query, key, value = project_heads(self.qkv, x, self.num_heads)
        return self.attend_core(query, key, value, padding_mask, training, return_attention_scores)

    def attend_core(
        self,
        query: Any,
        key: Any,
        value: Any,
        padding_mask: Any,
        training: bool | None,
        return_attention_scores: bool,
    ) -> Any:
        """Calls `attention_core` with this layer's dropout."""
        return attention_core(
            query,
            key,
            value,
            padding_mask=padding_mask,
            return_attention_scores=return_attention_scores,
            **self.dropout_options(training),
        )

    def dropout_options(self, training: bool | None) -> dict[str, Any]:
        """Returns what the attention cores need to know of dropout in this call."""
        return {
            "dropout_rate": self.dropout if training else 0.0,
            "seed_generator": self.seed_generator if self.dropout > 0 else None,
        }

    @classmethod
    def from_multi_head(
        cls, layer: LargeScaleMultiHeadAttention, approximate: bool = False, **options: Any
    ) -> Self:
        """Makes a layer of this kind with the weights of plain attention.

        Args:
            layer: built `LargeScaleMultiHeadAttention`, not quantised; it is left as it is.
            approximate: bool, whether the closest layer will do where none computes the same.
            **options: arguments that this kind has and plain attention has not.

        Returns:
            A built layer.

        Raises:
            ValueError: if it would compute something else and `approximate` is not set.
        """
        config = LargeScaleMultiHeadAttention.get_config(layer)
        new = cls.from_config({**config, **options})
        new.build((None, None, layer.projection.kernel.shape[1]))
        exact = new.take_multi_head_weights(layer.multi_head_weights()[0])
        new.projection.set_weights(
            [ops.convert_to_numpy(w) for w in merged_weights(layer.projection)]
        )
        new.check_exact(exact, approximate)
        return new

    def to_multi_head(self, approximate: bool = False) -> LargeScaleMultiHeadAttention:
        """Makes plain attention with the weights of this layer; see `from_multi_head`."""
        weights, exact = self.multi_head_weights()
        self.check_exact(exact, approximate)
        config = LargeScaleMultiHeadAttention.get_config(self)
        plain_layer = LargeScaleMultiHeadAttention.from_config(config)
        plain_layer.build((None, None, self.projection.kernel.shape[1]))
        plain_layer.take_multi_head_weights(weights)
        plain_layer.projection.set_weights(
            [ops.convert_to_numpy(w) for w in merged_weights(self.projection)]
        )
        return plain_layer

    def check_exact(self, exact: bool, approximate: bool) -> None:
        """Refuses a conversion that is not exact unless the caller asked for the closest one."""
        if not exact and not approximate:
            raise InputError(
                "Plain attention with the same outputs does not exist for every "
                f"`{type(self).__name__}`, nor the other way round; `approximate=True` takes the "
                f"closest. Received: approximate={approximate}, {self.get_config()}"
            )

    def multi_head_weights(self):
        """Returns the weights of the queries, keys and values of plain attention.

        Returns:
            A pair: three NumPy arrays `(C, num_heads, head_dim)`, with one row more for the bias if
            there is one, and whether plain attention with them computes what this layer does.
        """
        return self.read_dense(self.qkv, 3), True

    def take_multi_head_weights(self, weights):
        """Takes what `multi_head_weights` returns; returns whether the outputs are the same."""
        self.write_dense(self.qkv, weights)
        return True

    def count_multiply_adds(self, tokens):
        """Returns the multiply-adds for one sample, an int: `4 T C I + 2 T^2 I`."""
        inner_dim, hidden_dim = self.projection.kernel.shape
        return tokens * (4 * hidden_dim * inner_dim + 2 * tokens * inner_dim)

    def _per_head(self, name, values, dtype):
        """Shapes a mask or a scale to (batch or 1, 1, heads, 1)."""
        values = ops.convert_to_tensor(values, dtype=dtype)
        if len(values.shape) not in (1, 2) or values.shape[-1] != self.num_heads:
            raise InputError(
                f"`{name}` must have shape ({self.num_heads},) or (batch, {self.num_heads}). "
                f"Received: {name} of shape {tuple(values.shape)}"
            )
        return ops.reshape(values, (-1, 1, self.num_heads, 1))

    def compute_output_shape(self, input_shape):
        return tuple(input_shape)

    def compute_output_spec(
        self,
        x,
        training=None,
        head_mask=None,
        padding_mask=None,
        return_head_outputs=False,
        return_attention_scores=False,
        mask=None,
        x_mask=None,
        head_scale=None,
    ):
        batch, tokens, _ = x.shape
        shapes = [x.shape]
        if return_head_outputs:
            shapes.append((batch, tokens, self.num_heads, self._head_dim))
        if return_attention_scores:
            shapes.append((batch, self.num_heads, tokens, tokens))
        outputs = tuple(keras.KerasTensor(shape, dtype=self.compute_dtype) for shape in shapes)
        return outputs if len(outputs) > 1 else outputs[0]

    def get_config(self):
        return {
            **super().get_config(),
            "num_heads": self.num_heads,
            "head_dim": self.head_dim,
            "dropout": self.dropout,
            "use_qkv_bias": self.use_qkv_bias,
            "use_output_bias": self.use_output_bias,
            "seed": self.seed,
            **weight_config(self, "kernel", "bias"),
        }


def _check_head_mask(head_mask):
    # Tensors pass: their values are unknown while a graph is traced.
    if isinstance(head_mask, (list, tuple, np.ndarray)):
        values = np.asarray(head_mask, "float32")
        if not np.all((values >= 0) & (values <= 1)):
            raise InputError(f"`head_mask` must be in [0, 1]. Received: head_mask={head_mask}")
