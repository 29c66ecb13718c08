"""Builds the blocks of a backbone."""

from lsmha_keras.attention.registry import needs_grid
from lsmha_keras.errors import InputError
from lsmha_keras.layers.conv_block import ConvBlock
from lsmha_keras.layers.glmix_block import GLMixBlock
from lsmha_keras.layers.spectral_block import SpectralBlock
from lsmha_keras.layers.transformer_block import TransformerBlock
from lsmha_keras.models.head_lists import WITH_HEADS, check_heads, count_heads_blocks, per_block

# Most slots of a GLMix block in each direction.
_SLOTS = 4


def make_blocks(kinds, grid_shape, hidden_dim, conv, lists, options, **arguments):
    """Builds the blocks of a backbone.

    Args:
        kinds: list of str, the kind of every block; see `block_kinds`.
        grid_shape: `(grid_height, grid_width)` of the tokens.
        hidden_dim: int, width of the tokens.
        conv: dict of the arguments of convolutional blocks, `design` and `fused`.
        lists: dict of `num_heads`, `head_dim`, `attention`, `attention_options` and `token_keep`,
            each one value or a list with one entry per block with heads.
        options: dict of arguments that only `TransformerBlock` has, and `token_return_after`.
        **arguments: `stochastic_depth_rate` of the last block, and arguments that all blocks but
            the convolutional ones share.

    Returns:
        A list of layers, named "block_0", "block_1" and so on.

    Raises:
        ValueError: if a list has the wrong length, a head count does not divide the width, or a
            block that needs all tokens comes after one that leaves some out.
    """
    count = count_heads_blocks(kinds)
    spread = {name: per_block(name, value, count) for name, value in lists.items()}
    check_heads(spread["num_heads"], spread["head_dim"], hidden_dim)
    options = dict(options)
    check_token_keep(kinds, spread, options["token_reduction"], options.pop("token_return_after"))
    rate = arguments.pop("stochastic_depth_rate")
    blocks = []
    for i, kind in enumerate(kinds):
        # Lists have no entries for blocks without heads.
        place = count_heads_blocks(kinds[:i])
        heads = {name: values[place] for name, values in spread.items() if place < count}
        depth = {"stochastic_depth_rate": rate * i / max(1, len(kinds) - 1)}
        common = {"grid_shape": grid_shape, "name": f"block_{i}", **depth}
        if kind == "conv":
            block = ConvBlock(**common, **conv, dtype=arguments["dtype"])
        elif kind == "spectral":
            block = SpectralBlock(**common, **_without_attention(arguments))
        elif kind == "glmix":
            slots = [min(_SLOTS, side) for side in grid_shape]
            heads.pop("token_keep", None)
            block = GLMixBlock(**common, slot_shape=slots, **heads, **arguments)
        else:
            block = TransformerBlock(**common, **heads, **options, **arguments)
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


def _without_attention(arguments):
    own = ("attention_dropout", "use_qkv_bias")
    return {name: value for name, value in arguments.items() if name not in own}
