"""Makes a trained model deeper, wider or many-headed without changing its predictions."""

from typing import Any

import keras
import numpy as np

from lsmha_keras.arguments import positive_int
from lsmha_keras.errors import InputError
from lsmha_keras.layers.head_weights import merged_weights
from lsmha_keras.layers.transformer_block import TransformerBlock
from lsmha_keras.models.blocks import PER_BLOCK, count_heads_blocks, joined, per_block
from lsmha_keras.models.cct_base_backbone import CCTBaseBackbone
from lsmha_keras.models.copy_weights import check_full_precision, copy_weights


def grow(
    model: Any,
    num_layers: int | None = None,
    mlp_dim: int | None = None,
    num_heads: int | None = None,
) -> Any:
    """Adds transformer blocks at the end, hidden units to every perceptron, and heads.

    The larger model starts with the predictions of the smaller one, so training it further is
    cheaper than training it from random weights. New blocks start with zero output projections, new
    hidden units and heads with zero outgoing weights. A recipe does the same with
    `model.grow_layers` and `model.grow_mlp_dim`.

    Args:
        model: a `CCTImageClassifier` or a `CCTBackbone`; it is not changed.
        num_layers: int, blocks of the larger model, convolutional and transformer together, or
            `None` for no more blocks. New blocks have as many heads as the last block.
        mlp_dim: int, width of the hidden layer of its perceptrons, or `None` for no change.
        num_heads: int, heads of each of its transformer blocks, or `None` for no change. New heads
            are as wide as the others of their block. Attention must be plain.

    Returns:
        A new model of the same class. Its outputs differ by about the epsilon of one layer
        normalisation per new block.

    Raises:
        ValueError: if the result would not be larger, or the model has no transformer block, has
            blocks without a perceptron or with attention that cannot get more heads, or is
            quantised.

    Example:

    ```python
    model = lsmha_keras.CCTImageClassifier.from_preset("lsmha-small")
    deeper = lsmha_keras.grow(model, num_layers=7, mlp_dim=256)
    ```

    References:
        - [Chen et al., 2016](https://arxiv.org/abs/1511.05641), growing without changing the
          function
    """
    if not isinstance(model, CCTBaseBackbone):
        return model.with_backbone(grow(model.backbone, num_layers, mlp_dim, num_heads))
    if num_heads is not None:
        check_full_precision(model, "grows")
        model = _add_heads(model, positive_int("num_heads", num_heads))
        if num_layers is None and mlp_dim is None:
            return model
    present = {"num_layers": model.num_layers, "mlp_dim": model.mlp_dim}
    asked = {"num_layers": num_layers, "mlp_dim": mlp_dim}
    wanted = {
        name: present[name] if value is None else positive_int(name, value)
        for name, value in asked.items()
    }
    smaller = [name for name in wanted if wanted[name] < present[name]]
    if smaller or wanted == present:
        raise InputError(
            f"The larger model needs more blocks than {present['num_layers']} or perceptrons wider "
            f"than {present['mlp_dim']}. "
            f"Received: num_layers={num_layers}, mlp_dim={mlp_dim}"
        )
    if "attention" not in model.block_kinds:
        raise InputError(
            "New transformer blocks copy the heads of the last one, but this model has only "
            f"{', '.join(sorted(set(model.block_kinds)))} blocks. "
            f"Received: num_layers={num_layers}, mlp_dim={mlp_dim}"
        )
    if model.mlp != "perceptron":
        raise InputError(
            "Only blocks with a perceptron can be added or widened without changing predictions. "
            f"Received: a model with mlp={model.mlp!r}"
        )
    check_full_precision(model, "grows")
    deeper = _deepen(model, wanted["num_layers"])
    return deeper if wanted["mlp_dim"] == model.mlp_dim else _widen(deeper, wanted["mlp_dim"])


def _add_heads(model, num_heads):
    kinds = model.block_kinds
    names = ("num_heads", "head_dim")
    lists = {
        name: per_block(name, getattr(model, name), count_heads_blocks(kinds)) for name in names
    }
    blocks = {i: b for i, b in enumerate(model.blocks) if isinstance(b, TransformerBlock)}
    counts = {index: block.num_heads for index, block in blocks.items()}
    if not blocks or max(counts.values()) > num_heads or set(counts.values()) == {num_heads}:
        raise InputError(
            f"The larger model needs more heads than its blocks have, which are {counts}. "
            f"Received: num_heads={num_heads}"
        )
    for index, block in blocks.items():
        if block.attention_kind != "multi_head":
            raise InputError(
                "Plain attention can get more heads; `lsmha_keras.convert_attention(model, "
                f"'multi_head')` comes first. Received: attention={block.attention_kind!r} in "
                f"block {index}"
            )
        place = count_heads_blocks(kinds[:index])
        lists["num_heads"][place], lists["head_dim"][place] = num_heads, block.attention.width
    lists = {name: joined(values) for name, values in lists.items()}
    larger = type(model).from_config({**model.get_config(), **lists})
    _copy_layers(model, larger, except_for=[block.name for block in blocks.values()])
    for index, block in blocks.items():
        copy_weights(block, larger.blocks[index], except_for=("attention",))
        _copy_first_heads(block.attention, larger.blocks[index].attention)
    return larger


def _copy_first_heads(attention, larger):
    heads = attention.num_heads
    # The incoming weights of new heads stay as they are drawn, or all of them would learn alike.
    parts = larger.read_dense(larger.qkv, 3)
    for part, values in zip(parts, attention.read_dense(attention.qkv, 3), strict=True):
        part[:, :heads] = values
    larger.write_dense(larger.qkv, parts)
    kernel, *bias = (keras.ops.convert_to_numpy(w) for w in merged_weights(attention.projection))
    rows = np.zeros(larger.projection.kernel.shape, kernel.dtype)
    rows[: len(kernel)] = kernel
    larger.projection.set_weights([rows, *bias])


def _deepen(model, num_layers):
    config = {**model.get_config(), "num_layers": num_layers}
    for key in PER_BLOCK:
        if isinstance(config[key], (list, tuple)):
            added = num_layers - model.num_layers
            config[key] = [*config[key], *config[key][-1:] * added]
    # New blocks leave out no tokens, or predictions would change.
    count = count_heads_blocks(model.block_kinds)
    keep = per_block("token_keep", model.token_keep, count)
    config["token_keep"] = joined([*keep, *[1.0] * (num_layers - model.num_layers)])
    if config["blocks"] is not None:
        config["blocks"] = [*config["blocks"], *["attention"] * (num_layers - model.num_layers)]
    deeper = type(model).from_config(config)
    _copy_layers(model, deeper, except_for=[])
    for block in deeper.blocks[model.num_layers :]:
        # The residual stream then passes unchanged, except for the block's second normalisation,
        # which the backbone's final one cancels.
        for dense in (block.attention.projection, block.mlp_output):
            dense.kernel.assign(keras.ops.zeros(dense.kernel.shape, dense.kernel.dtype))
    return deeper


def _widen(model, mlp_dim):
    wider = type(model).from_config({**model.get_config(), "mlp_dim": mlp_dim})
    blocks = [i for i, block in enumerate(model.blocks) if hasattr(block, "mlp_hidden")]
    _copy_layers(model, wider, except_for=[model.blocks[i].name for i in blocks])
    for i in blocks:
        _copy_widened(model.blocks[i], wider.blocks[i])
    return wider


def _copy_layers(model, larger, except_for):
    names = {layer.name for layer in model.layers}
    for layer in larger.layers:
        if layer.name in names and layer.name not in except_for and layer.weights:
            copy_weights(model.get_layer(layer.name), layer)


def _copy_widened(block, wider):
    copy_weights(block, wider, except_for=("mlp_hidden", "mlp_conv", "mlp_output"))
    hidden, output = block.mlp_hidden, block.mlp_output
    # The incoming weights of new units stay random, or all of them would learn the same.
    _write_first(wider.mlp_hidden.kernel, hidden.kernel)
    _write_first(wider.mlp_hidden.bias, hidden.bias)
    if getattr(block, "mlp_conv_enabled", False):
        for target, values in zip(wider.mlp_conv.weights, block.mlp_conv.weights, strict=True):
            # Channels are the next-to-last axis of kernels and the last axis of biases.
            _write_first(target, values)
    kernel = wider.mlp_output.kernel
    kernel.assign(keras.ops.zeros(kernel.shape, kernel.dtype))
    _write_first(kernel, output.kernel)
    wider.mlp_output.bias.assign(output.bias)


def _write_first(target, values):
    """Writes values into the first rows and columns of a weight."""
    values = keras.ops.convert_to_tensor(values)
    start = (0,) * len(values.shape)
    target.assign(keras.ops.slice_update(keras.ops.convert_to_tensor(target), start, values))
