"""Replaces the first transformer blocks of a model with convolutional blocks."""

from __future__ import annotations

from typing import Any

from lsmha_keras.errors import InputError
from lsmha_keras.layers.conv_block import ConvBlock
from lsmha_keras.models.blocks import PER_BLOCK, count_heads_blocks
from lsmha_keras.models.cct_base_backbone import CCTBaseBackbone
from lsmha_keras.models.copy_weights import copy_weights


def replace_blocks(model: Any, num_blocks: int, design: str = "separable") -> Any:
    """Builds a low-latency hybrid, with convolutions in place of the first transformer blocks.

    The new blocks work on the same tokens and have random weights. All other weights are kept, with
    LoRA updates merged. Fine-tune the hybrid with a recipe or `fit`.

    Args:
        model: a `CCTImageClassifier` or a `CCTBackbone`; it is not changed.
        num_blocks: int, number of leading convolutional blocks of the hybrid, including those that
            the model already has. At least one block stays a transformer block.
        design: str, design of the new blocks; see `ConvBlock`. Defaults to `"separable"`.

    Returns:
        A new model of the same class.

    Raises:
        ValueError: if `num_blocks` is out of range, existing convolutional blocks are fused or of
            another design, or LoRA is enabled in layers quantised to anything but int8 or int4.

    Example:

    ```python
    model = lsmha_keras.CCTImageClassifier.from_preset("cct_2_3x2_h16", num_classes=10)
    hybrid = lsmha_keras.replace_blocks(model, num_blocks=1)
    ```

    References:
        - [Gross et al., 2025](https://arxiv.org/abs/2506.23832)
    """
    if not isinstance(model, CCTBaseBackbone):
        return model.with_backbone(replace_blocks(model.backbone, num_blocks, design))
    kinds = model.block_kinds
    present = next((i for i, kind in enumerate(kinds) if kind != "conv"), len(kinds))
    last = max((i for i, kind in enumerate(kinds) if kind == "attention"), default=0)
    if isinstance(num_blocks, bool) or not isinstance(num_blocks, int):
        raise InputError(f"`num_blocks` must be an int. Received: num_blocks={num_blocks}")
    if not present < num_blocks <= last:
        allowed = f"must be from {present + 1} to {last}" if present < last else "can be no larger"
        raise InputError(
            f"Of the {model.num_layers} blocks, the first {present} are convolutional and one must "
            f"stay a transformer block: `num_blocks` {allowed}. Received: num_blocks={num_blocks}"
        )
    if "conv" in kinds and (model.fused_conv_blocks or model.conv_block_design != design):
        raise InputError(
            "New blocks need the design of the existing convolutional blocks, which must not be "
            f"fused; the model has design={model.conv_block_design!r}, "
            f"fused={model.fused_conv_blocks}. Received: design={design!r}"
        )
    config = {**model.get_config(), "conv_block_design": design}
    if config["blocks"] is None:
        config["num_conv_blocks"] = num_blocks
    else:
        config["blocks"] = ["conv"] * num_blocks + kinds[num_blocks:]
    for key in PER_BLOCK:
        if isinstance(config[key], (list, tuple)):
            config[key] = list(config[key][count_heads_blocks(kinds[:num_blocks]) :])
    hybrid = type(model).from_config(config)
    for layer in hybrid.layers:
        if not _is_new(layer, model):
            copy_weights(model.get_layer(layer.name), layer)
    return hybrid


def _is_new(layer, model):
    """Returns whether a layer of the hybrid has no counterpart to copy weights from."""
    names = [other.name for other in model.layers]
    if layer.name not in names:
        return True  # the input, which gets a new name
    return isinstance(layer, ConvBlock) != isinstance(model.get_layer(layer.name), ConvBlock)
