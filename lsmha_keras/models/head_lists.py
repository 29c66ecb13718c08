"""Kinds of blocks, and heads: one value for all blocks that have heads, or one for each."""

from lsmha_keras.errors import InputError
from lsmha_keras.nearest import nearest

# The arguments of a backbone that may be lists.
PER_BLOCK = ("num_heads", "head_dim", "attention", "attention_options")
# What `CCTBackbone(blocks=...)` takes.
KINDS = ("conv", "spectral", "glmix", "attention")
# Of these the heads, their widths and their kind may be given in lists.
WITH_HEADS = ("glmix", "attention")


def block_kinds(config):
    """Returns the kind of every block, a list of str.

    Args:
        config: dict of a backbone's arguments: `num_layers`, and `blocks` or `num_conv_blocks` or
            neither.

    Raises:
        ValueError: if a kind is unknown (the nearest is named), there are not as many as layers, or
            both arguments are given.
    """
    count, convs, blocks = (config.get(k) for k in ("num_layers", "num_conv_blocks", "blocks"))
    convs = convs or 0
    if blocks is None:
        return ["conv"] * convs + ["attention"] * (count - convs)
    if not isinstance(blocks, (list, tuple)) or len(blocks) != count:
        raise InputError(
            f"`blocks` must be a list with one entry per layer, which are {count}: set "
            f"`num_layers`, too. Received: blocks={blocks!r}, num_layers={count}"
        )
    for kind in blocks:
        if kind not in KINDS:
            raise InputError(
                f"Blocks are {', '.join(KINDS)}{nearest(kind, KINDS)}. Received: blocks={blocks!r}"
            )
    if convs:
        raise InputError(
            'Of `blocks` and `num_conv_blocks`, which stands for as many times "conv" in front, '
            f"one is enough: leave `num_conv_blocks` at 0. Received: blocks={blocks!r}, "
            f"num_conv_blocks={convs}"
        )
    return list(blocks)


def count_heads_blocks(kinds):
    """Returns how many entries the lists of heads have for blocks of these kinds, an int."""
    return sum(kind in WITH_HEADS for kind in kinds)


def per_block(name, value, num_blocks):
    """Spreads one value over the transformer blocks, or checks a list with one entry for each.

    Args:
        name: name of the argument, for the message.
        value: int, str, dict, `None` or a list.
        num_blocks: int.

    Returns:
        A list.

    Raises:
        ValueError: if it is neither, or a list of another length.
    """
    if value is None or isinstance(value, (int, str, dict)):
        return [value] * num_blocks
    if not isinstance(value, (list, tuple)) or len(value) != num_blocks:
        raise InputError(
            f"`{name}` must be one value or a list with one entry per transformer block "
            f"({num_blocks} here). Received: {name}={value}"
        )
    return list(value)


def joined(values):
    """Makes one value of a list of equal ones, so that configs can be read; else returns it."""
    return values[0] if all(value == values[0] for value in values) else values


def check_heads(num_heads, head_dims, hidden_dim):
    """Refuses head counts that are no positive ints, or do not divide the width.

    Args:
        num_heads: list of ints, one per transformer block.
        head_dims: list of ints or `None`, likewise; `None` means `hidden_dim // num_heads`.
        hidden_dim: int, width of the tokens.

    Raises:
        ValueError: names the block.
    """
    for i, (heads, head_dim) in enumerate(zip(num_heads, head_dims, strict=True)):
        if not isinstance(heads, int) or heads < 1:
            raise InputError(f"`num_heads` must be positive ints. Received: num_heads={heads}")
        if head_dim is None and hidden_dim % heads:
            raise InputError(
                "`num_heads` must divide `hidden_dim` where `head_dim` is `None`; give `head_dim` "
                f"to choose the width of a head freely. Received: num_heads={heads} (transformer "
                f"block {i}), hidden_dim={hidden_dim}"
            )
