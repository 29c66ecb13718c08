"""Builds the blocks of a backbone."""

from lsmha_keras.layers.conv_block import ConvBlock
from lsmha_keras.layers.glmix_block import GLMixBlock
from lsmha_keras.layers.spectral_block import SpectralBlock
from lsmha_keras.layers.transformer_block import TransformerBlock
from lsmha_keras.models.head_lists import check_heads, count_heads_blocks, per_block

# Most slots of a GLMix block in each direction.
_SLOTS = 4


def make_blocks(kinds, grid_shape, hidden_dim, conv, lists, options, **arguments):
    """Builds the blocks of a backbone.

    Args:
        kinds: list of str, the kind of every block; see `block_kinds`.
        grid_shape: `(grid_height, grid_width)` of the tokens.
        hidden_dim: int, width of the tokens.
        conv: dict of the arguments of convolutional blocks, `design` and `fused`.
        lists: dict of `num_heads`, `head_dim`, `attention` and `attention_options`, each one value
            or a list with one entry per block with heads.
        options: dict of arguments that only `TransformerBlock` has.
        **arguments: `stochastic_depth_rate` of the last block, and arguments that all blocks but
            the convolutional ones share.

    Returns:
        A list of layers, named "block_0", "block_1" and so on.

    Raises:
        ValueError: if a list has the wrong length, or a head count does not divide the width.
    """
    count = count_heads_blocks(kinds)
    spread = {name: per_block(name, value, count) for name, value in lists.items()}
    check_heads(spread["num_heads"], spread["head_dim"], hidden_dim)
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
            block = GLMixBlock(**common, slot_shape=slots, **heads, **arguments)
        else:
            block = TransformerBlock(**common, **heads, **options, **arguments)
        blocks.append(block)
    return blocks


def _without_attention(arguments):
    own = ("attention_dropout", "use_qkv_bias")
    return {name: value for name, value in arguments.items() if name not in own}
