"""Names the nearest valid names in an error message."""

import difflib


def nearest(name, valid, count=3):
    """Returns "; did you mean 'a' or 'b'?", or "." when nothing is near.

    Args:
        name: the name that was given.
        valid: the names that exist.
        count: at most so many suggestions.

    Returns:
        A string to put at the end of a sentence of an error message.

    Example:
        >>> nearest("cifar-100", ["cifar10", "cifar100", "digits"], count=1)
        "; did you mean 'cifar100'?"
    """
    matches = difflib.get_close_matches(str(name), dict.fromkeys(valid), n=count, cutoff=0.5)
    if not matches:
        return "."
    return "; did you mean " + " or ".join(repr(match) for match in matches) + "?"
