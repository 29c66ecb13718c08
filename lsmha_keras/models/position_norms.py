"""Positions that each transformer block adds anew (LaPE)."""

import keras

from lsmha_keras.errors import InputError, nearest

JOINS = ("input", "layer")


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
