"""What the backbones of images and of sequences have in common."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from typing import Any, Self

import keras
import keras_hub
import numpy as np

from lsmha_keras import presets
from lsmha_keras.arguments import check_channels_last, positive_int
from lsmha_keras.layers.position_embedding import PositionEmbedding
from lsmha_keras.layers.weight_arguments import built_with_weights
from lsmha_keras.models.block_walk import (
    HEAD_KINDS,
    BlockWalk,
    Intermediates,
    check_intermediates,
)
from lsmha_keras.models.blocks import (
    block_kinds,
    check_depth,
    check_join,
    make_blocks,
    make_position_norms,
)
from lsmha_keras.models.copy_weights import copy_weights, resolve_policies
from lsmha_keras.models.keras_workarounds import (
    KERAS_LOCK,
    locked,
    quantization_configs,
    register_torch_parameters,
    restore_quantization,
    torch_parameters_up_to_date,
)
from lsmha_keras.models.preset_arguments import check_arguments, check_structure
from lsmha_keras.models.preset_files import save_preset
from lsmha_keras.types import PathLike


@torch_parameters_up_to_date
class CCTBaseBackbone(keras_hub.models.Backbone):
    """Base of `CCTBackbone` and `CCTSequenceBackbone`: positions, blocks and presets.

    The constructor of a subclass spells out its arguments, makes the layers that `embed` needs,
    and calls `make_layers` and `connect`. `embed` makes tokens of the inputs.
    """

    def make_layers(
        self, arguments: Mapping[str, Any], grid_shape: tuple[int, int], dtype: Any
    ) -> None:
        """Makes the layers that follow the tokenizer.

        Args:
            arguments: dict of the constructor's arguments, from `own_arguments`.
            grid_shape: `(grid_height, grid_width)` of the tokens.
            dtype: policy of the layers.

        Raises:
            ValueError: if one of the arguments is out of range or does not fit another one.
        """
        hidden_dim = positive_int("hidden_dim", arguments["hidden_dim"])
        join, epsilon = arguments["position_embedding_join"], arguments["layer_norm_epsilon"]
        check_depth(*_some(arguments, "num_layers", "num_conv_blocks", "token_return_after"))
        self.block_kinds = kinds = block_kinds(arguments)
        check_join(join, *_some(arguments, "position_embedding", "token_keep"))

        self.position_embedding_layer = PositionEmbedding(
            grid_shape,
            arguments["position_embedding"],
            join == "input",
            dtype=dtype,
            name="position_embedding",
        )
        self.position_norms = make_position_norms(kinds, join, epsilon=epsilon, dtype=dtype)
        self.embedding_dropout = keras.layers.Dropout(
            arguments["dropout_rate"], dtype=dtype, name="embedding_dropout"
        )
        self.blocks = make_blocks(kinds, grid_shape, hidden_dim, arguments, dtype)
        self.layer_norm = keras.layers.LayerNormalization(
            epsilon=epsilon, dtype=dtype, name="layer_norm"
        )
        # `BlockWalk` reads them while `connect` runs the layers.
        self.position_embedding_join = join
        self.token_return_after = arguments["token_return_after"]

    def connect(
        self, inputs: Any, arguments: Mapping[str, Any], dtype: Any = None, **kwargs: Any
    ) -> None:
        """Builds the functional model of the layers, and keeps the arguments for `get_config`.

        Args:
            inputs: `keras.Input`.
            arguments: dict of the constructor's arguments, from `own_arguments`.
            dtype: policy of the model.
            **kwargs: base model arguments, such as `name`.
        """
        # Keras changes the class's bases while it builds a functional model; see `locked`.
        with KERAS_LOCK:
            super().__init__(inputs, self.trace(inputs)["output"], dtype=dtype, **kwargs)
        resolve_policies(self)
        register_torch_parameters(self)
        self._argument_names = tuple(arguments)
        for name, value in arguments.items():
            if name != "blocks":  # the layers; their kinds are `block_kinds`
                setattr(self, name, value)
        self._has_blocks_argument = arguments["blocks"] is not None

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

    def embed(self, inputs: Any, training: bool | None = None) -> Any:
        """Makes tokens `(batch, tokens, hidden_dim)` of the inputs, before positions are added."""
        return self.tokenizer(inputs, training=training)

    @property
    def has_padding(self) -> bool:
        """Whether inputs may end with padding."""
        return False

    def over_inputs(self, tokens: np.ndarray, inputs: Any) -> np.ndarray:
        """Lays shares of tokens, `(batch, ..., tokens)`, over what people see: here their cells.

        Args:
            tokens: array with a value for each token.
            inputs: preprocessed images, texts or series.

        Returns:
            The array; of sequences `(batch, ..., time)`, with nothing on padding.
        """
        return tokens

    def token_mask(self, inputs: Any) -> Any:
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

    def get_config(self):
        """Returns the arguments of the constructor.

        Adds `quantization_configs`, which `from_config` reads, if the model was quantised with a
        custom configuration.
        """
        own = quantization_configs(self)
        return {
            **super().get_config(),
            **({"quantization_configs": own} if own else {}),
            **{name: getattr(self, name) for name in self._argument_names},
            # `self.blocks` are the layers.
            "blocks": self.block_kinds if self._has_blocks_argument else None,
        }


def _some(arguments, *names):
    return [arguments[name] for name in names]
