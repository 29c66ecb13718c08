"""Transformer encoder block with the normalisation of the reference CCT."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import keras
from keras import ops

from lsmha_keras.arguments import number_in, plain, positive_int
from lsmha_keras.attention.registry import check_token_options, make_attention
from lsmha_keras.errors import InputError, nearest
from lsmha_keras.layers.attention_core import joint_mask
from lsmha_keras.layers.head_tokens import HeadTokens
from lsmha_keras.layers.second_branch import SecondBranch
from lsmha_keras.layers.token_reduction import TokenReduction, check_reduction, heard_scores
from lsmha_keras.layers.unsaved_weight import UnsavedWeight
from lsmha_keras.layers.weight_arguments import (
    set_weight_arguments,
    weight_arguments,
    weight_config,
)
from lsmha_keras.types import Constraint, Initializer, Regularizer

_HEAD_DROPOUTS = ("random", "importance")


@keras.saving.register_keras_serializable(package="lsmha_keras")
class TransformerBlock(SecondBranch, keras.layers.Layer):
    """Large-scale multi-head attention and a two-layer perceptron, both residual.

    As in the reference, the second normalisation acts on the residual stream itself:

    - `x = x + drop_path(attention(LN(x)))`
    - `x = LN(x)`
    - `x = x + drop_path(W2 gelu(W1 x))`, with the exact GELU

    With `token_keep` below 1 there are fewer tokens after the first normalised sum; see
    `TokenReduction`.

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
        attention: str, kind of attention; see `list_attention`. Defaults to `"multi_head"`.
        attention_options: dict of the arguments that only this kind has, or `None`.
        grid_shape: `(grid_height, grid_width)` of the tokens, for kinds that need it and for
            `mlp_conv`.
        head_dropout: float in [0, 1), probability to leave out a head for a sample in training; the
            others are scaled up. Defaults to `0.0`.
        head_dropout_by: `"random"`, or `"importance"`: the callback `MaskImportantHeads` chooses
            that share of the heads of a model, the most important ones. Defaults to `"random"`.
        mlp: `"perceptron"`, or `"ista"`: the second branch is CRATE's step of sparse coding, whose
            sum with `x` passes a ReLU; `mlp_dim` has no effect then. Defaults to `"perceptron"`.
        mlp_conv: bool, whether the perceptron sees neighbours: `h + gelu(depthwise3x3(h))` takes
            the place of its hidden layer `h`. Defaults to `False`.
        context_broadcast: bool, whether the perceptron's output `y` becomes `(y + mean(y)) / 2`,
            with the mean over the tokens that no mask leaves out. Defaults to `False`.
        head_tokens: int, how many tokens that stand for groups of channels attention sees beside
            the others, and drops again; 0 for none. See `HeadTokens`. Defaults to `0`.
        token_keep: float in (0, 1], share of the tokens that the perceptron and later blocks see.
            Defaults to `1.0`.
        token_reduction: `"fuse"`, `"merge"` or `"skip"`, what becomes of the others. Defaults to
            `"fuse"`.
        kernel_initializer: initializer of the kernels of attention and perceptron. Defaults to a
            truncated normal of standard deviation 0.02.
        bias_initializer: initializer of their biases. Defaults to `"zeros"`.
        kernel_regularizer, bias_regularizer: regularizers of the same weights.
        kernel_constraint, bias_constraint: constraints on them.
        **kwargs: base layer arguments, such as `name`, `dtype` and `activity_regularizer`.

    Call arguments:
        x: tokens, float tensor of shape `(batch, tokens, channels)`.
        training, head_mask, padding_mask, return_head_outputs, return_attention_scores, mask,
            x_mask, head_scale: as in `LargeScaleMultiHeadAttention`.
        position: optional float tensor `(1 or batch, tokens, channels)`, added to `LN(x)` for
            attention alone.
        return_reduction: bool, whether to return what became of the tokens, too; for `token_keep`
            below 1.

    Returns:
        The output, of the shape of `x` but for the tokens that are left; with flags set, a tuple of
        the output, the head outputs `(batch, tokens, num_heads, head_dim)`, the attention weights
        `(batch, num_heads, tokens, tokens)`, with `head_tokens` more keys in the last axis, and the
        dict of `TokenReduction`, as asked for.

    Raises:
        ValueError: if an argument is out of range, `num_heads` does not divide the token width
            while `head_dim` is `None`, the kind of attention or an option of it is unknown, there
            is no grid for `mlp_conv`, or tokens that do not fit it, options of the perceptron are
            set where there is none, or tokens are added or left out where a grid of them is needed
            or attention has no scores.

    Example:

    ```python
    block = lsmha_keras.TransformerBlock(num_heads=16, mlp_dim=128)
    block(np.zeros((2, 64, 128), "float32"))  # (2, 64, 128)
    ```

    References:
        - [Hassani et al., 2021](https://arxiv.org/abs/2104.05704)
        - [Sun et al., 2020](https://arxiv.org/abs/2009.09672), heads left out at random
        - [Lu et al., 2022](https://arxiv.org/abs/2210.05958), a convolution in the perceptron
        - [Yu et al., 2023](https://arxiv.org/abs/2306.01129), CRATE
        - [Hyeon-Woo et al., 2022](https://arxiv.org/abs/2210.08457), context broadcasting
        - [Yu et al., 2022](https://arxiv.org/abs/2212.05262), positions of each layer (LaPE)
    """

    def __init__(
        self,
        num_heads: int,
        mlp_dim: int,
        head_dim: int | None = None,
        dropout_rate: float = 0.0,
        attention_dropout: float = 0.0,
        stochastic_depth_rate: float = 0.0,
        use_qkv_bias: bool = False,
        layer_norm_epsilon: float = 1e-05,
        attention: str = "multi_head",
        attention_options: Mapping[str, Any] | None = None,
        grid_shape: Sequence[int] | None = None,
        head_dropout: float = 0.0,
        head_dropout_by: str = "random",
        mlp: str = "perceptron",
        mlp_conv: bool = False,
        context_broadcast: bool = False,
        head_tokens: int = 0,
        token_keep: float = 1.0,
        token_reduction: str = "fuse",
        kernel_initializer: Initializer = None,
        bias_initializer: Initializer = "zeros",
        kernel_regularizer: Regularizer = None,
        bias_regularizer: Regularizer = None,
        kernel_constraint: Constraint = None,
        bias_constraint: Constraint = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.supports_masking = True
        self.num_heads = plain(num_heads)
        self.mlp_dim = positive_int("mlp_dim", mlp_dim)
        self.head_dim = plain(head_dim)
        self.dropout_rate = plain(dropout_rate)
        self.attention_dropout = plain(attention_dropout)
        self.stochastic_depth_rate = plain(stochastic_depth_rate)
        self.use_qkv_bias = plain(use_qkv_bias)
        self.layer_norm_epsilon = plain(layer_norm_epsilon)
        self.attention_kind = attention
        self.attention_options = None if attention_options is None else dict(attention_options)
        self.grid_shape = plain(grid_shape)
        self.head_dropout = plain(head_dropout)
        self.mlp = mlp
        self.mlp_conv_enabled = plain(mlp_conv)
        self.context_broadcast = plain(context_broadcast)
        self.head_dropout_by = head_dropout_by
        self.head_tokens = positive_int("head_tokens", head_tokens) if head_tokens else 0
        self.token_keep, self.token_reduction = plain(token_keep), token_reduction
        self._check_heads_and_tokens()
        self.check_second_branch()
        set_weight_arguments(self, default_stddev=0.02, **locals())
        self._make_layers(self.dtype_policy)

    def _check_heads_and_tokens(self):
        number_in("[0, 1)", "head_dropout", self.head_dropout)
        if self.head_dropout_by not in _HEAD_DROPOUTS:
            raise InputError(
                f"`head_dropout_by` must be one of {', '.join(_HEAD_DROPOUTS)}"
                f"{nearest(self.head_dropout_by, _HEAD_DROPOUTS)}. "
                f"Received: head_dropout_by={self.head_dropout_by!r}"
            )
        check_reduction(self.token_keep, self.token_reduction)
        check_token_options(
            self.attention_kind, self.attention_options, self.head_tokens, self.token_keep
        )

    def _make_layers(self, dtype):
        self.attention_norm = keras.layers.LayerNormalization(
            epsilon=self.layer_norm_epsilon, dtype=dtype, name="attention_norm"
        )
        self.attention = make_attention(
            self.attention_kind,
            self.num_heads,
            grid_shape=self.grid_shape,
            options=self.attention_options,
            head_dim=self.head_dim,
            dropout=self.attention_dropout,
            use_qkv_bias=self.use_qkv_bias,
            dtype=dtype,
            name="attention",
            **weight_arguments(self, "kernel", "bias"),
        )
        self.mlp_norm = keras.layers.LayerNormalization(
            epsilon=self.layer_norm_epsilon, dtype=dtype, name="mlp_norm"
        )
        self.make_second_branch()
        if self.head_tokens:
            self.head_token_layer = HeadTokens(
                self.head_tokens,
                layer_norm_epsilon=self.layer_norm_epsilon,
                dtype=dtype,
                name="head_tokens",
                **weight_arguments(self, "kernel", "bias"),
            )
        if self.token_keep < 1:
            self.token_reduction_layer = TokenReduction(
                self.token_keep, self.token_reduction, dtype=dtype, name="token_reduction"
            )
        if self.head_dropout > 0 and self.head_dropout_by == "random":
            self.seed_generator = keras.random.SeedGenerator()
        elif self.head_dropout > 0:
            # A factor for each head, 0 for those that `MaskImportantHeads` leaves out.
            self.head_keep = UnsavedWeight((self.num_heads,), name="head_keep")

    def build(self, input_shape):
        self.attention_norm.build(input_shape)
        seen = tuple(input_shape)
        if self.head_tokens:
            self.head_token_layer.build(input_shape)
            tokens = None if seen[1] is None else seen[1] + self.head_tokens
            seen = (seen[0], tokens, seen[2])
        self.attention.build(seen)
        if self.head_dropout > 0 and self.head_dropout_by == "importance":
            self.head_keep.build()
        self.mlp_norm.build(input_shape)
        self.build_second_branch(input_shape)

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
        position=None,
        return_reduction=False,
    ):
        valid = joint_mask(x, padding_mask=padding_mask, mask=mask, x_mask=x_mask)
        reduces = self.token_keep < 1
        if reduces:
            self._refuse_masks_of_keras(mask, x_mask)
        head_scale = self._drop_heads(x, head_scale, training)
        attended, heads, scores = self._attend(
            self._attention_input(x, position),
            valid,
            training=training,
            head_mask=head_mask,
            return_head_outputs=return_head_outputs,
            return_attention_scores=return_attention_scores or reduces,
            head_scale=head_scale,
        )
        # As in the reference, the second branch is added to the normalised tokens, not to those
        # before the normalisation as in most transformers: its weights need this order.
        x = self.mlp_norm(x + self.drop(attended, training))
        reduction = {}
        if reduces:
            # Without the columns of head tokens, which cannot be left out.
            own = heard_scores(scores, head_mask, head_scale)[..., : x.shape[1]]
            x, reduction = self.token_reduction_layer(x, own, training=training, padding_mask=valid)
            valid = reduction.get("padding_mask")
        x = self.add_second_branch(x, valid, training)
        outputs = (x,)
        outputs += (heads,) if return_head_outputs else ()
        outputs += (scores,) if return_attention_scores else ()
        outputs += (reduction,) if return_reduction else ()
        return outputs if len(outputs) > 1 else x

    def _refuse_masks_of_keras(self, *masks):
        if any(mask is not None for mask in masks):
            raise InputError(
                "Keras's masks do not follow tokens that are left out: give `padding_mask`, and "
                "take the new one from `return_reduction=True`. Received: a mask of Keras with "
                f"token_keep={self.token_keep}"
            )

    def _attention_input(self, x, position):
        x = self.attention_norm(x)
        return x if position is None else x + ops.cast(position, x.dtype)

    def _attend(self, x, valid, **arguments):
        """Calls attention; returns its output, and head outputs and scores or `None`."""
        if self.head_tokens:
            made = self.head_token_layer(x, padding_mask=valid)
            if valid is not None:  # head tokens are never padding
                valid = ops.concatenate([valid, ops.ones(ops.shape(made)[:2], "bool")], axis=1)
            x = ops.concatenate([x, ops.cast(made, x.dtype)], axis=1)
        outputs = self.attention(x, padding_mask=valid, **arguments)
        outputs = list(outputs) if isinstance(outputs, (tuple, list)) else [outputs]
        scores = outputs.pop() if arguments["return_attention_scores"] else None
        if self.head_tokens:
            # They end here: the next block makes its own.
            outputs = [part[:, : -self.head_tokens] for part in outputs]
            scores = None if scores is None else scores[:, :, : -self.head_tokens]
        return outputs[0], outputs[1] if arguments["return_head_outputs"] else None, scores

    def _drop_heads(self, x, head_scale, training):
        """Joins a factor for each head of each sample, 0 for those left out, to what is given."""
        if not training or self.head_dropout == 0:
            return head_scale
        if self.head_dropout_by == "importance":
            kept = ops.cast(self.head_keep.weight, self.compute_dtype)
        else:
            ones = ops.ones((ops.shape(x)[0], self.num_heads), self.compute_dtype)
            # Kept heads count 1 / (1 - rate), so that their sum is the same on average.
            kept = keras.random.dropout(ones, self.head_dropout, seed=self.seed_generator)
        return kept if head_scale is None else kept * ops.cast(head_scale, self.compute_dtype)

    def compute_output_shape(self, input_shape):
        batch, tokens, channels = input_shape
        if self.token_keep < 1:
            tokens = self.token_reduction_layer.count_left(tokens)
        return (batch, tokens, channels)

    def compute_output_spec(
        self,
        x,
        training=None,
        return_head_outputs=False,
        return_attention_scores=False,
        return_reduction=False,
        padding_mask=None,
        **kwargs,
    ):
        batch, tokens, _ = x.shape
        shapes = [self.compute_output_shape(x.shape)]
        if return_head_outputs:
            shapes.append((batch, tokens, self.num_heads, self.attention.width))
        if return_attention_scores:
            seen = None if tokens is None else tokens + self.head_tokens
            shapes.append((batch, self.num_heads, tokens, seen))
        outputs = tuple(keras.KerasTensor(shape, dtype=self.compute_dtype) for shape in shapes)
        if return_reduction and self.token_keep == 1:
            outputs += ({},)
        elif return_reduction:
            scores = keras.KerasTensor((batch, self.num_heads, tokens, tokens))
            entered = keras.KerasTensor(x.shape, dtype=self.compute_dtype)
            reduction = self.token_reduction_layer.compute_output_spec(
                entered, scores, padding_mask=padding_mask
            )
            outputs += (reduction[1],)
        return outputs if len(outputs) > 1 else outputs[0]

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
            "attention": self.attention_kind,
            "attention_options": self.attention_options,
            "grid_shape": self.grid_shape,
            "head_dropout": self.head_dropout,
            "mlp": self.mlp,
            "mlp_conv": self.mlp_conv_enabled,
            "context_broadcast": self.context_broadcast,
            "head_dropout_by": self.head_dropout_by,
            "head_tokens": self.head_tokens,
            "token_keep": self.token_keep,
            "token_reduction": self.token_reduction,
            **weight_config(self, "kernel", "bias"),
        }
