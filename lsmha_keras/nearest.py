"""Names the nearest valid name in an error message."""

import difflib


def nearest(name, valid):
    """Returns " (nearest: learning_rate)", or the empty text when nothing is near.

    Args:
        name: what was given.
        valid: the names that exist.

    Returns:
        str to put at the end of a sentence of an error message.

    Example:
        >>> nearest("learning_rat", ["learning_rate", "weight_decay"])
        ' (nearest: learning_rate)'
    """
    matches = difflib.get_close_matches(str(name), list(valid), n=1, cutoff=0.5)
    return f" (nearest: {matches[0]})" if matches else ""
