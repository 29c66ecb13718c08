"""Kinds of blocks, and per-block settings: one value for all blocks with heads, or a list."""

from lsmha_keras.arguments import plain
from lsmha_keras.errors import InputError, nearest

# Arguments of a backbone that may be lists with one entry per block with heads.
PER_BLOCK = ("num_heads", "head_dim", "attention", "attention_options", "token_keep")
# What `CCTBackbone(blocks=...)` takes.
KINDS = ("conv", "spectral", "glmix", "attention")
# Kinds of blocks that have an entry in these lists.
WITH_HEADS = ("glmix", "attention")


def check_depth(num_layers, num_conv_blocks):
    """Refuses numbers of blocks, all and convolutional ones, that are out of range."""
    if num_layers < 1 or not 0 <= num_conv_blocks <= num_layers:
        raise InputError(
            "`num_layers` must be positive and `num_conv_blocks` from 0 to `num_layers`. "
            f"Received: num_layers={num_layers}, num_conv_blocks={num_conv_blocks}"
        )


def check_sizes(image_shape, num_layers, num_conv_blocks, token_return_after):
    """Refuses sizes of a backbone that are out of range.

    Args:
        image_shape: `(height, width, channels)`.
        num_layers: int.
        num_conv_blocks: int.
        token_return_after: int.

    Raises:
        ValueError: names the argument.
    """
    if len(image_shape) != 3 or any(not side or side < 1 for side in image_shape):
        raise InputError(
            "`image_shape` must be (height, width, channels), all positive. "
            f"Received: image_shape={image_shape}"
        )
    check_depth(num_layers, num_conv_blocks)
    count = plain(token_return_after)
    if isinstance(count, bool) or not isinstance(count, int) or count < 0:
        raise InputError(
            "`token_return_after` must be an int from 0 on. "
            f"Received: token_return_after={token_return_after!r}"
        )


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
