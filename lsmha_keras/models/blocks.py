"""The blocks of a backbone: their kinds, settings for each of them, and the layers."""

import keras

from lsmha_keras.arguments import whole_number
from lsmha_keras.attention.registry import needs_grid
from lsmha_keras.errors import InputError, nearest
from lsmha_keras.layers.conv_block import ConvBlock
from lsmha_keras.layers.glmix_block import GLMixBlock
from lsmha_keras.layers.spectral_block import SpectralBlock
from lsmha_keras.layers.transformer_block import TransformerBlock

# Arguments of a backbone that may be lists with one entry per block with heads.
PER_BLOCK = ("num_heads", "head_dim", "attention", "attention_options", "token_keep")
# Arguments of all blocks but the convolutional ones, of those with attention, and of transformer
# blocks alone.
_SHARED = ("mlp_dim", "dropout_rate", "layer_norm_epsilon")
_ATTENDED = ("attention_dropout", "use_qkv_bias")
_OPTIONS = (
    "head_dropout",
    "head_dropout_by",
    "mlp",
    "mlp_conv",
    "context_broadcast",
    "head_tokens",
    "token_reduction",
)
# What `CCTBackbone(blocks=...)` takes.
KINDS = ("conv", "spectral", "glmix", "attention")
# Kinds of blocks that have an entry in these lists.
WITH_HEADS = ("glmix", "attention")
# Where positions are added: once, or in each transformer block anew (LaPE).
JOINS = ("input", "layer")
# Most slots of a GLMix block in each direction.
_SLOTS = 4


def check_depth(num_layers, num_conv_blocks, token_return_after):
    """Refuses numbers of blocks that are out of range.

    Args:
        num_layers: int, number of all blocks.
        num_conv_blocks: int, number of convolutional ones.
        token_return_after: int, number of blocks that tokens skip.

    Raises:
        ValueError: names the argument.
    """
    if num_layers < 1 or not 0 <= num_conv_blocks <= num_layers:
        raise InputError(
            "`num_layers` must be positive and `num_conv_blocks` from 0 to `num_layers`. "
            f"Received: num_layers={num_layers}, num_conv_blocks={num_conv_blocks}"
        )
    whole_number("token_return_after", token_return_after, 0)


def block_kinds(config):
    """Returns the kind of every block as a list of str.

    Args:
        config: dict of a backbone's arguments: `num_layers` and perhaps `blocks` or
            `num_conv_blocks`.

    Raises:
        ValueError: if a kind is unknown (the nearest is named), their number differs from
            `num_layers`, or both arguments are given.
    """
    count, convs, blocks = (config.get(k) for k in ("num_layers", "num_conv_blocks", "blocks"))
    convs = convs or 0
    if blocks is None:
        return ["conv"] * convs + ["attention"] * (count - convs)
    if not isinstance(blocks, (list, tuple)) or len(blocks) != count:
        raise InputError(
            f"`blocks` must be a list with one entry per layer ({count} here): set `num_layers`, "
            f"too. Received: blocks={blocks!r}, num_layers={count}"
        )
    for kind in blocks:
        if kind not in KINDS:
            raise InputError(
                f"The kinds of blocks are {', '.join(KINDS)}{nearest(kind, KINDS)}. "
                f"Received: blocks={blocks!r}"
            )
    if convs:
        raise InputError(
            '`num_conv_blocks` is short for as many leading "conv" entries of `blocks`: with '
            f"`blocks`, leave it at 0. Received: blocks={blocks!r}, "
            f"num_conv_blocks={convs}"
        )
    return list(blocks)


def count_heads_blocks(kinds):
    """Returns the number of blocks with heads: the length of lists such as `num_heads`."""
    return sum(kind in WITH_HEADS for kind in kinds)


def per_block(name, value, num_blocks):
    """Repeats one value for every block with heads, or checks a list with one entry for each.

    Args:
        name: name of the argument, for the message.
        value: number, str, dict, `None` or a list.
        num_blocks: int.

    Returns:
        A list.

    Raises:
        ValueError: if it is neither a value nor a list, or a list of another length.
    """
    if value is None or isinstance(value, (int, float, str, dict)):
        return [value] * num_blocks
    if not isinstance(value, (list, tuple)) or len(value) != num_blocks:
        raise InputError(
            f"`{name}` must be one value or a list with one entry per transformer block "
            f"({num_blocks} here). Received: {name}={value}"
        )
    return list(value)


def joined(values):
    """Returns one value for a list of equal ones, so configs stay readable; else the list."""
    return values[0] if all(value == values[0] for value in values) else values


def check_heads(num_heads, head_dims, hidden_dim):
    """Refuses head counts that are not positive ints or do not divide the width.

    Args:
        num_heads: list of ints, one per transformer block.
        head_dims: list of ints or `None`, one per block; `None` means `hidden_dim // num_heads`.
        hidden_dim: int, width of the tokens.

    Raises:
        ValueError: names the block.
    """
    for i, (heads, head_dim) in enumerate(zip(num_heads, head_dims, strict=True)):
        if not isinstance(heads, int) or heads < 1:
            raise InputError(f"`num_heads` must be positive ints. Received: num_heads={heads}")
        if head_dim is None and hidden_dim % heads:
            raise InputError(
                "`num_heads` must divide `hidden_dim` where `head_dim` is `None`; pass `head_dim` "
                f"to choose another head width. Received: num_heads={heads} (transformer "
                f"block {i}), hidden_dim={hidden_dim}"
            )


def make_blocks(kinds, grid_shape, hidden_dim, arguments, dtype):
    """Builds the blocks of a backbone.

    Args:
        kinds: list of str, the kind of every block; see `block_kinds`.
        grid_shape: `(grid_height, grid_width)` of the tokens.
        hidden_dim: int, width of the tokens.
        arguments: dict of the backbone's arguments; those of `PER_BLOCK` are each one value or a
            list with one entry per block with heads.
        dtype: policy of the layers.

    Returns:
        A list of layers, named "block_0", "block_1" and so on.

    Raises:
        ValueError: if a list has the wrong length, a head count does not divide the width, or a
            block that needs all tokens comes after one that leaves some out.
    """
    count = count_heads_blocks(kinds)
    lists = {name: per_block(name, arguments[name], count) for name in PER_BLOCK}
    check_heads(lists["num_heads"], lists["head_dim"], hidden_dim)
    check_token_keep(kinds, lists, arguments["token_reduction"], arguments["token_return_after"])
    shared, attended, options = (
        {name: arguments[name] for name in names} for names in (_SHARED, _ATTENDED, _OPTIONS)
    )
    rate = arguments["stochastic_depth_rate"]
    blocks = []
    for i, kind in enumerate(kinds):
        # Lists have no entries for blocks without heads.
        place = count_heads_blocks(kinds[:i])
        heads = {name: values[place] for name, values in lists.items() if place < count}
        common = {"grid_shape": grid_shape, "name": f"block_{i}", "dtype": dtype}
        # Linear in depth, as in Huang et al. (2016): early blocks make what all others build on.
        common["stochastic_depth_rate"] = rate * i / max(1, len(kinds) - 1)
        if kind == "conv":
            design, fused = arguments["conv_block_design"], arguments["fused_conv_blocks"]
            block = ConvBlock(design=design, fused=fused, **common)
        elif kind == "spectral":
            block = SpectralBlock(**common, **shared)
        elif kind == "glmix":
            slots = [min(_SLOTS, side) for side in grid_shape]
            heads.pop("token_keep", None)
            block = GLMixBlock(slot_shape=slots, **common, **heads, **shared, **attended)
        else:
            block = TransformerBlock(**common, **heads, **shared, **attended, **options)
        blocks.append(block)
    return blocks


def check_token_keep(kinds, lists, way, return_after):
    """Refuses blocks that need the whole grid where tokens are missing.

    Args:
        kinds: list of the kinds of all blocks.
        lists: dict of lists with one entry per block with heads: `token_keep`, `attention` and
            `attention_options`.
        way: str, `token_reduction`.
        return_after: int, how many more blocks the tokens skip with `"skip"`.

    Raises:
        ValueError: names both blocks.
    """
    since, until = None, len(kinds)  # tokens are missing after one block, up to another
    for i, kind in enumerate(kinds):
        if i > until:
            since, until = None, len(kinds)
        keep, attention, options = _of_block(kinds, lists, i)
        if since is not None and (kind != "attention" or needs_grid(attention, options)):
            needing = f"attention {attention!r}" if kind == "attention" else f"a {kind!r} block"
            raise InputError(
                "Blocks that need the whole grid of tokens come before those that leave tokens "
                f"out. Received: {needing} as block {i}, token_keep below 1 in block {since}"
            )
        if keep == 1:
            continue
        if kind != "attention":
            raise InputError(
                "Only attention blocks leave tokens out. Received: "
                f"token_keep={keep} for block {i}, a {kind!r} block"
            )
        if since is not None and way == "skip":
            raise InputError(
                "Tokens come back before others skip blocks. Received: token_keep below 1 in the "
                f"blocks {since} and {i}, with token_return_after={return_after}"
            )
        since, until = i, i + return_after if way == "skip" else len(kinds)


def _of_block(kinds, lists, block):
    """Returns a block's share of tokens, kind of attention and the options of that."""
    if kinds[block] not in WITH_HEADS:
        return 1, None, None
    place = count_heads_blocks(kinds[:block])
    return [lists[name][place] for name in ("token_keep", "attention", "attention_options")]


def check_join(join, kind, token_keep):
    """Refuses a way to join positions with tokens that does not exist, or cannot be had.

    Args:
        join: str, one of `JOINS`.
        kind: str, kind of the position embedding.
        token_keep: float or list of floats.

    Raises:
        ValueError: if it is unknown (the nearest is named), there are no positions, or tokens are
            left out, so that their places differ from image to image.
    """
    if join not in JOINS:
        raise InputError(
            f"`position_embedding_join` must be one of {', '.join(JOINS)}{nearest(join, JOINS)}. "
            f"Received: position_embedding_join={join!r}"
        )
    if join == "layer" and kind == "none":
        raise InputError(
            "There are no positions for blocks to add. "
            "Received: position_embedding='none', position_embedding_join='layer'"
        )
    keeps = token_keep if isinstance(token_keep, (list, tuple)) else [token_keep]
    if join == "layer" and any(keep != 1 for keep in keeps):
        raise InputError(
            "Positions are added to all tokens of the grid in each block: keep them all, or add "
            f"positions at the input. Received: position_embedding_join='layer', "
            f"token_keep={token_keep}"
        )


def make_position_norms(kinds, join, epsilon, dtype):
    """Makes the layer normalisations of positions.

    Args:
        kinds: list of the kinds of all blocks.
        join: str, one of `JOINS`.
        epsilon: float.
        dtype: policy of the layers.

    Returns:
        A dict from the index of each transformer block to its `keras.layers.LayerNormalization`,
        ascending; empty with `"input"`.
    """
    if join == "input":
        return {}
    return {
        i: keras.layers.LayerNormalization(epsilon=epsilon, dtype=dtype, name=f"position_norm_{i}")
        for i, kind in enumerate(kinds)
        if kind == "attention"
    }
