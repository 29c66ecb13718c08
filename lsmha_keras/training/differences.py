"""What differs between two settings."""


def differences(own, other):
    """Compares nested dicts.

    Args:
        own: dict of dicts and values.
        other: likewise.

    Returns:
        dict from the keys that differ, such as "optimizer.learning_rate", to the pair of values
        (own, other's). A value of None is the same as none; a list is the same as a tuple.

    Example:
        >>> differences({"data": {"batch_size": 32}}, {"data": {"batch_size": 64}})
        {'data.batch_size': (32, 64)}
    """
    own, other = _flatten(own), _flatten(other)
    keys = [*own, *(key for key in other if key not in own)]
    pairs = {key: (own.get(key), other.get(key)) for key in keys}
    return {key: pair for key, pair in pairs.items() if pair[0] != pair[1]}


def list_differences(found):
    """Says in words what differs between what is there and what was asked for.

    Args:
        found: dict that `differences` returned, of what is there from what was asked for.

    Returns:
        str.

    Example:
        >>> list_differences({"data.batch_size": (32, 64)})
        'data.batch_size is 32 there and 64 here'
    """
    return "; ".join(
        f"{key} is {there!r} there and {here!r} here" for key, (there, here) in found.items()
    )


def _flatten(values, prefix=""):
    flat = {}
    for key, value in values.items():
        if isinstance(value, dict):
            flat.update(_flatten(value, f"{prefix}{key}."))
        elif value is not None:
            flat[prefix + key] = list(value) if isinstance(value, (list, tuple)) else value
    return flat
