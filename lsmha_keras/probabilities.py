"""Converts a classifier's outputs to probabilities."""

import numpy as np

from lsmha_keras.errors import InputError


def probabilities(outputs, activation):
    """Converts a classifier's outputs to probabilities.

    Args:
        outputs: `(images, classes)` array.
        activation: str, name of the model's last activation, "linear" for logits.

    Returns:
        `(images, classes)` float64 array. Each row sums to 1, except after a sigmoid, which gives
        independent probabilities.

    Raises:
        ValueError: if the activation is neither linear, softmax nor sigmoid.

    Example:
        >>> probabilities([[0.0, 0.0]], "linear")
        array([[0.5, 0.5]])
    """
    outputs = np.asarray(outputs, "float64")
    if activation in ("softmax", "sigmoid"):
        return outputs
    if activation != "linear":
        raise InputError(
            "Only logits, a softmax and a sigmoid can be read as probabilities. "
            f"Received: activation={activation}"
        )
    exponentials = np.exp(outputs - outputs.max(axis=-1, keepdims=True))
    return exponentials / exponentials.sum(axis=-1, keepdims=True)
