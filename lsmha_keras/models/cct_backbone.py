"""The compact convolutional transformer for images, without its head."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras

from lsmha_keras.arguments import check_channels_last, own_arguments
from lsmha_keras.errors import InputError
from lsmha_keras.layers.conv_tokenizer import ConvTokenizer
from lsmha_keras.models.cct_base_backbone import CCTBaseBackbone
from lsmha_keras.models.preset_arguments import check_arguments


@keras.saving.register_keras_serializable(package="lsmha_keras")
class CCTBackbone(CCTBaseBackbone):
    """Compact convolutional transformer with large-scale multi-head attention.

    Images pass a convolutional tokenizer, a position embedding, `num_conv_blocks` convolutional
    blocks, the transformer blocks (or others, see `blocks`), and a last layer normalisation.

    Args:
        image_shape: `(height, width, channels)`. Defaults to `(32, 32, 3)`.
        hidden_dim: int, width of the tokens. Defaults to `256`.
        num_layers: int, number of blocks, convolutional and transformer together. Defaults to `7`.
        num_heads: int, or a list with one int per transformer block. Defaults to `4`.
        head_dim: int, `None`, or a list with one entry per transformer block; `None` means
            `hidden_dim // num_heads`. Defaults to `None`.
        mlp_dim: int, width of the hidden layer of the perceptrons. Defaults to `512`.
        tokenizer_layers: int, convolutions of the tokenizer. Defaults to `1`.
        tokenizer_kernel_size: int, side of the tokenizer's kernels. Defaults to `3`.
        tokenizer_filters: int, filters of every tokenizer convolution but the last. Defaults to
            `64`.
        tokenizer_design: str, design of the tokenizer's convolutions; see `ConvTokenizer`. Defaults
            to `"plain"`.
        num_conv_blocks: int, number of leading blocks that are convolutional. Defaults to `0`.
        conv_block_design: str, design of the convolutional blocks; see `ConvBlock`. Defaults to
            `"separable"`.
        fused_conv_blocks: bool, whether batch normalisation is folded into the convolutional blocks
            and the tokenizer; see `fuse`. Defaults to `False`.
        position_embedding: `"learnable"`, `"sine"` or `"none"`. Defaults to `"learnable"`.
        position_embedding_join: `"input"`, or `"layer"` (LaPE): each transformer block adds the
            embedding to what its attention sees, normalised once more. Defaults to `"input"`.
        dropout_rate: float, dropout of embeddings and projections. Defaults to `0.0`.
        attention_dropout: float, dropout on the attention weights. Defaults to `0.1`.
        stochastic_depth_rate: float, probability of skipping a branch. It grows linearly from 0 in
            the first block to this value in the last. Defaults to `0.1`.
        use_qkv_bias: bool, whether queries, keys and values have a bias. Defaults to `False`.
        layer_norm_epsilon: float. Defaults to `1e-5`.
        attention: str, kind of attention, or a list with one entry per transformer block;
            `lsmha_keras.list_attention()` lists them. Defaults to `"multi_head"`.
        attention_options: dict of arguments specific to this kind, or `None`, or a list with one
            entry per transformer block.
        blocks: list with the kind of each layer: `"conv"`, `"attention"` (a `TransformerBlock`),
            `"spectral"` or `"glmix"`. `None` means `num_conv_blocks` times `"conv"`, then
            `"attention"`. Lists such as `num_heads` have one entry for each `"attention"` and
            `"glmix"`.
        head_dropout, head_dropout_by, mlp, mlp_conv, context_broadcast, head_tokens,
            token_reduction: options of the transformer blocks; see `TransformerBlock`.
        token_keep: float in (0, 1], or a list like `num_heads`: the share of its tokens that a
            block passes on. Defaults to `1.0`.
        token_return_after: int, with `token_reduction="skip"`: how many more blocks the other
            tokens skip before they return to their places. Defaults to `1`.
        dtype: string or `keras.DTypePolicy`, policy of the computations and weights.
        **kwargs: base model arguments, such as `name`.

    Returns:
        Called on images `(batch, height, width, channels)`, normalised as the preset's image
        converter does: tokens `(batch, tokens, hidden_dim)` in the compute dtype.

    Raises:
        ValueError: if an argument is unknown or out of range, a list does not have one entry per
            transformer block, `blocks` does not have one entry per layer, a head count does not
            divide `hidden_dim` while its `head_dim` is `None`, or a kind of block, a kind of
            attention or one of its options is unknown.

    Example:

    ```python
    # CCT-7/3x1 with a growing number of heads, its first two blocks convolutional.
    backbone = lsmha_keras.CCTBackbone(
        num_conv_blocks=2, num_heads=[4, 8, 16, 32, 64]
    )
    tokens = backbone(np.zeros((1, 32, 32, 3), "float32"))  # (1, 256, 256)
    ```

    References:
        - [Hassani et al., 2021](https://arxiv.org/abs/2104.05704), the architecture
        - [Gross et al., 2025](https://arxiv.org/abs/2506.23832), many heads, convolutional blocks
    """

    def __init__(
        self,
        image_shape: Sequence[int] = (32, 32, 3),
        hidden_dim: int = 256,
        num_layers: int = 7,
        num_heads: int | Sequence[int] = 4,
        head_dim: int | Sequence[int | None] | None = None,
        mlp_dim: int = 512,
        tokenizer_layers: int = 1,
        tokenizer_kernel_size: int = 3,
        tokenizer_filters: int = 64,
        tokenizer_design: str = "plain",
        num_conv_blocks: int = 0,
        conv_block_design: str = "separable",
        fused_conv_blocks: bool = False,
        position_embedding: str = "learnable",
        position_embedding_join: str = "input",
        dropout_rate: float = 0.0,
        attention_dropout: float = 0.1,
        stochastic_depth_rate: float = 0.1,
        use_qkv_bias: bool = False,
        layer_norm_epsilon: float = 1e-05,
        attention: str | Sequence[str] = "multi_head",
        attention_options: Any = None,
        blocks: Sequence[str] | None = None,
        head_dropout: float = 0.0,
        mlp: str = "perceptron",
        mlp_conv: bool = False,
        context_broadcast: bool = False,
        head_dropout_by: str = "random",
        head_tokens: int = 0,
        token_keep: float | Sequence[float] = 1.0,
        token_reduction: str = "fuse",
        token_return_after: int = 1,
        dtype: Any = None,
        **kwargs: Any,
    ) -> None:
        arguments = own_arguments(locals())
        check_channels_last(kwargs.pop("data_format", None))
        check_arguments(kwargs, CCTBackbone)
        image_shape = arguments["image_shape"] = tuple(arguments["image_shape"])
        if len(image_shape) != 3 or any(not side or side < 1 for side in image_shape):
            raise InputError(
                "`image_shape` must be (height, width, channels), all positive. "
                f"Received: image_shape={image_shape}"
            )

        # === Layers ===
        self.tokenizer = ConvTokenizer(
            hidden_dim,
            num_layers=tokenizer_layers,
            kernel_size=tokenizer_kernel_size,
            num_filters=tokenizer_filters,
            design=tokenizer_design,
            fused=fused_conv_blocks,
            dtype=dtype,
            name="tokenizer",
        )
        grid_shape = self.tokenizer.grid_shape((None, *image_shape))
        self.make_layers(arguments, grid_shape, dtype)

        # === Functional Model and Config ===
        self.connect(keras.Input(image_shape, name="images"), arguments, dtype=dtype, **kwargs)

    @property
    def extent(self) -> tuple[int, int]:
        """`(height, width)` that the grid of the tokens covers, in pixels of the input."""
        return self.image_shape[0], self.image_shape[1]
