"""Labels of one batch, brought to one form and checked."""

import numpy as np


def class_labels(labels, num_classes, offset=0):
    """Turns integer or one-hot labels into integers.

    Args:
        labels: array of shape `(batch,)`, `(batch, 1)` or `(batch, num_classes)`.
        num_classes: int.
        offset: int, number of images before this batch, for the error's text.

    Returns:
        `(batch,)` int64 array.

    Raises:
        ValueError: if the shape is another one, or a label is not an integer or out of range.

    Example:
        >>> class_labels(np.array([[0.0, 1.0, 0.0]]), 3).tolist()
        [1]
    """
    if labels.ndim == 2 and labels.shape[1] == num_classes and num_classes > 1:
        return labels.argmax(axis=1)
    labels = labels[:, 0] if labels.ndim == 2 and labels.shape[1] == 1 else labels
    if labels.ndim != 1 or not (labels == np.floor(labels)).all():
        raise ValueError(
            f"Labels must be integers or one-hot with {num_classes} classes. "
            f"Received: labels of shape {labels.shape}, dtype {labels.dtype}"
        )
    wrong = np.flatnonzero((labels < 0) | (labels >= num_classes))
    if len(wrong):
        raise ValueError(
            f"Labels must lie in 0 .. {num_classes - 1}, as there are {num_classes} classes. "
            f"Received: label {labels[wrong[0]]} of image {offset + wrong[0]}"
        )
    return labels.astype("int64")
