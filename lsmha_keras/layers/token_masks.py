"""Masks of tokens, given by the caller or made by Keras."""

import functools

from keras import ops


def joint_mask(x, **masks):
    """Returns the mask of the tokens that no mask leaves out, or `None` without masks.

    Args:
        x: tokens, tensor of shape `(batch, tokens, channels)`.
        **masks: boolean tensors of shape `(batch, tokens)` or `None`, by the names of the arguments
            of a layer's `call`. Keras (3.15) fills in `mask` with the mask of `x` if `x` is the
            only tensor it is called on, and `x_mask` otherwise.

    Raises:
        ValueError: if a mask does not fit the tokens.
    """
    found = []
    for name, mask in masks.items():
        if mask is None:
            continue
        mask = ops.convert_to_tensor(mask, dtype="bool")
        tokens = {mask.shape[-1], x.shape[1]} - {None}  # unknown in some graphs
        if len(mask.shape) != 2 or len(tokens) > 1:
            raise ValueError(
                f"`{name}` must have shape (batch, {x.shape[1]}). "
                f"Received: {name} of shape {tuple(mask.shape)}"
            )
        found.append(mask)
    return functools.reduce(ops.logical_and, found) if found else None
