"""Head counts and widths, one for all transformer blocks or one for each."""

from lsmha_keras.errors import InputError

# The arguments of a backbone that may be lists.
PER_BLOCK = ("num_heads", "head_dim", "attention", "attention_options")


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
