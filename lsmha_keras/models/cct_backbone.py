"""The compact convolutional transformer without its head."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Mapping, Sequence
from typing import Any, Self

import keras
import keras_hub

from lsmha_keras import presets
from lsmha_keras.arguments import check_channels_last, plain, positive_int
from lsmha_keras.layers.conv_tokenizer import ConvTokenizer
from lsmha_keras.layers.position_embedding import PositionEmbedding
from lsmha_keras.layers.weight_arguments import built_with_weights
from lsmha_keras.models.block_walk import BlockWalk
from lsmha_keras.models.copy_weights import copy_weights, resolve_policies
from lsmha_keras.models.head_lists import block_kinds, check_sizes
from lsmha_keras.models.intermediates import HEAD_KINDS, Intermediates, check_intermediates
from lsmha_keras.models.keras_workarounds import (
    KERAS_LOCK,
    locked,
    quantization_configs,
    register_torch_parameters,
    restore_quantization,
    torch_parameters_up_to_date,
)
from lsmha_keras.models.make_blocks import make_blocks
from lsmha_keras.models.position_norms import check_join, make_position_norms
from lsmha_keras.models.preset_arguments import check_arguments, check_structure
from lsmha_keras.models.preset_files import save_preset
from lsmha_keras.types import PathLike


@torch_parameters_up_to_date
@keras.saving.register_keras_serializable(package="lsmha_keras")
class CCTBackbone(keras_hub.models.Backbone):
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
        check_channels_last(kwargs.pop("data_format", None))
        check_arguments(kwargs, CCTBackbone)
        hidden_dim = positive_int("hidden_dim", hidden_dim)
        image_shape, num_layers, num_heads, head_dim, num_conv_blocks, token_keep = map(
            plain, (image_shape, num_layers, num_heads, head_dim, num_conv_blocks, token_keep)
        )
        check_sizes(image_shape, num_layers, num_conv_blocks, token_return_after)
        kinds = block_kinds(
            {"num_layers": num_layers, "num_conv_blocks": num_conv_blocks, "blocks": blocks}
        )
        check_join(position_embedding_join, position_embedding, token_keep)

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
        add = position_embedding_join == "input"
        self.position_embedding_layer = PositionEmbedding(
            grid_shape, position_embedding, add, dtype=dtype, name="position_embedding"
        )
        self.position_norms = make_position_norms(
            kinds, position_embedding_join, epsilon=layer_norm_epsilon, dtype=dtype
        )
        self.embedding_dropout = keras.layers.Dropout(
            dropout_rate, dtype=dtype, name="embedding_dropout"
        )
        self.blocks = make_blocks(
            kinds,
            grid_shape,
            hidden_dim,
            conv={"design": conv_block_design, "fused": fused_conv_blocks},
            lists={
                "num_heads": num_heads,
                "head_dim": head_dim,
                "attention": attention,
                "attention_options": attention_options,
                "token_keep": token_keep,
            },
            mlp_dim=mlp_dim,
            dropout_rate=dropout_rate,
            attention_dropout=attention_dropout,
            stochastic_depth_rate=stochastic_depth_rate,
            use_qkv_bias=use_qkv_bias,
            layer_norm_epsilon=layer_norm_epsilon,
            options={
                "head_dropout": head_dropout,
                "mlp": mlp,
                "mlp_conv": mlp_conv,
                "context_broadcast": context_broadcast,
                "head_dropout_by": head_dropout_by,
                "head_tokens": head_tokens,
                "token_reduction": token_reduction,
                "token_return_after": token_return_after,
            },
            dtype=dtype,
        )
        self.layer_norm = keras.layers.LayerNormalization(
            epsilon=layer_norm_epsilon, dtype=dtype, name="layer_norm"
        )

        self.position_embedding_join = position_embedding_join
        self.token_return_after = plain(token_return_after)

        # === Functional Model ===
        images = keras.Input(image_shape, name="images")
        with KERAS_LOCK:
            super().__init__(images, self.trace(images)["output"], dtype=dtype, **kwargs)
        resolve_policies(self)
        register_torch_parameters(self)

        # === Config ===
        self.image_shape, self.hidden_dim = tuple(image_shape), hidden_dim
        self.num_layers, self.mlp_dim = num_layers, plain(mlp_dim)
        self.num_heads, self.head_dim = num_heads, head_dim
        self.tokenizer_layers, self.tokenizer_design = plain(tokenizer_layers), tokenizer_design
        self.tokenizer_kernel_size = plain(tokenizer_kernel_size)
        self.tokenizer_filters = plain(tokenizer_filters)
        self.num_conv_blocks, self.conv_block_design = num_conv_blocks, conv_block_design
        self.fused_conv_blocks = plain(fused_conv_blocks)
        self.position_embedding = position_embedding
        self.dropout_rate, self.attention_dropout = plain(dropout_rate), plain(attention_dropout)
        self.stochastic_depth_rate = plain(stochastic_depth_rate)
        self.use_qkv_bias, self.layer_norm_epsilon = plain(use_qkv_bias), plain(layer_norm_epsilon)
        self.attention, self.attention_options = attention, attention_options
        self.head_dropout, self.head_dropout_by = plain(head_dropout), head_dropout_by
        self.mlp, self.mlp_conv = mlp, plain(mlp_conv)
        self.context_broadcast, self.head_tokens = plain(context_broadcast), plain(head_tokens)
        self.token_keep, self.token_reduction = token_keep, token_reduction
        self.block_kinds, self._blocks_argument = kinds, None if blocks is None else kinds

    def intermediates(
        self, names: Sequence[str], head_masks: Mapping[int, Any] | None = None
    ) -> Intermediates:
        """Builds a model that returns named values from inside this one and shares its weights.

        Names: `"embedding"`, the tokens that enter the first block; `"block_3/output"`, tokens
        `(batch, tokens, hidden_dim)`; `"output"`, the output of the backbone. Transformer blocks
        also have `"block_3/head_outputs"`, `(batch, tokens, heads, head_dim)` before the output
        projection, and `"block_3/attention_scores"`, `(batch, heads, tokens, tokens)`.

        Args:
            names: list of names.
            head_masks: optional `{block index: mask}`; the heads of that block are multiplied by
                the mask, of shape `(heads,)`, with values in [0, 1].

        Returns:
            An `Intermediates` model from preprocessed images to a dict with one tensor per name.

        Raises:
            ValueError: if a name is unknown or asks a convolutional block for heads.

        Example:

        ```python
        backbone = lsmha_keras.CCTBackbone(num_layers=2)
        model = backbone.intermediates(["block_1/head_outputs", "block_1/output"])
        model(np.zeros((1, 32, 32, 3), "float32"))["block_1/head_outputs"]  # (1, 256, 4, 64)
        ```
        """
        check_intermediates(self, names, head_masks or {})
        return Intermediates(self, names, head_masks)

    def trace(
        self, images: Any, names: Sequence[str] = (), head_masks: Mapping[int, Any] | None = None
    ) -> dict[str, Any]:
        """Runs the layers one by one and keeps what they return; see `intermediates`.

        Args:
            images: preprocessed images `(batch, height, width, channels)`, symbolic or not.
            names: names of the head outputs and attention scores to return.
            head_masks: optional `{block index: mask}`.

        Returns:
            A dict from name to tensor, with `"output"`, every block's output and `names`.
        """
        head_masks = head_masks or {}
        walk = BlockWalk(self)
        x = walk.embed(images)  # (batch, tokens, hidden_dim)
        values = {"embedding": x, "padding_mask": walk.padding_mask}
        for i in range(len(self.blocks)):
            kinds = [kind for kind in HEAD_KINDS if f"block_{i}/{kind}" in names]
            mask = {"head_mask": head_masks[i]} if i in head_masks else {}
            x = walk.run(i, x, **mask, **{f"return_{kind}": True for kind in kinds})
            if kinds:
                x, *extras = x
                for kind, extra in zip(kinds, extras, strict=True):
                    values[f"block_{i}/{kind}"] = extra
            values[f"block_{i}/output"] = x
        values["output"] = self.layer_norm(x)
        return values

    def embed(self, images: Any, training: bool | None = None) -> Any:
        """Makes tokens `(batch, tokens, hidden_dim)` of the inputs, before positions are added."""
        return self.tokenizer(images, training=training)

    def token_mask(self, images: Any) -> Any:
        """Returns which tokens are no padding, boolean `(batch, tokens)`; `None`: all of them."""
        return None

    def fuse(self) -> Self:
        """Builds a copy for inference, with tokenizer and convolutional blocks folded.

        Batch normalisation and parallel branches are folded into the convolutions, and LoRA updates
        into their kernels. Outputs at inference stay the same up to rounding. Quantised layers stay
        quantised.

        Returns:
            A new backbone of this class with `fused_conv_blocks=True` and weights of its own.

        Raises:
            ValueError: if LoRA is enabled in layers quantised to anything but int8 or int4.
        """
        fused = type(self).from_config({**self.get_config(), "fused_conv_blocks": True})
        for layer in self.layers:
            copy = fused.get_layer(layer.name)
            if hasattr(layer, "fused_weights"):
                copy.set_weights(layer.fused_weights())
            else:
                copy_weights(layer, copy)
        return fused

    @classmethod
    def from_config(cls, config):
        """Builds from a config and restores custom quantisation configurations."""
        config = dict(config)
        configurations = config.pop("quantization_configs", {})
        return restore_quantization(super().from_config(config), configurations)

    def default_lora_layer_names(self):
        """Returns the names of the layers that `enable_lora` adapts."""
        return ["qkv", "query", "key_value", "query_key", "value"]

    def load_weights(self, filepath, *args, **kwargs):
        """Loads weights, after checking them against the checksums beside them, if any."""
        presets.verify_file(filepath)
        super().load_weights(filepath, *args, **kwargs)

    @classmethod
    @locked
    def from_preset(cls, preset: PathLike, load_weights: bool = True, **kwargs: Any) -> Self:
        """Builds a backbone from a preset; see `CCTImageClassifier.from_preset`."""
        check_channels_last(kwargs.pop("data_format", None))
        source = presets.resolve_preset(preset)
        if isinstance(source, dict):
            return cls(**{**source, **kwargs})
        check_arguments(kwargs, cls)
        presets.verify_checksums(source)
        saved = presets.read_config(source)
        if load_weights:
            check_structure(preset, cls, saved, kwargs)
        saved_dtype = saved.get("dtype")
        if isinstance(saved_dtype, dict) and saved_dtype["class_name"] == "DTypePolicyMap":
            # Quantised: KerasHub 0.32 restores this for tasks, but not for backbones.
            kwargs.setdefault("dtype", saved_dtype)
        # An absolute path, because KerasHub takes a bare name for a shipped preset.
        load = functools.partial(
            super().from_preset, str(source.resolve()), load_weights=load_weights, **kwargs
        )
        return built_with_weights(load) if load_weights else load()

    def save_to_preset(self, preset_dir: PathLike, max_shard_size: float = 10) -> None:
        """Saves config and weights to a preset directory; see `CCTImageClassifier`'s."""
        with save_preset(preset_dir, self.variables) as directory:
            super().save_to_preset(str(directory), max_shard_size=max_shard_size)

    def get_config(self, constructor=None):
        """Returns the arguments of the constructor.

        Adds `quantization_configs`, which `from_config` reads, if the model was quantised with a
        custom configuration.
        """
        own = quantization_configs(self)
        parameters = inspect.signature(constructor or CCTBackbone.__init__).parameters
        names = [name for name in parameters if name not in ("self", "dtype", "kwargs")]
        return {
            **super().get_config(),
            **({"quantization_configs": own} if own else {}),
            **{name: getattr(self, name) for name in names},
            "blocks": self._blocks_argument,
        }
