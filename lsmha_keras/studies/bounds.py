"""Whether a search ended where its space ends."""

import math

# Of a continuous range, whose ends are hardly ever drawn.
_NEAR = 0.05
# Ends beyond which there is nothing: no fewer than none, no more than all.
_ENDS = {"num_conv_blocks": (0, None), "augmentation_strength": (0, 1)}


def at_bounds(space, settings):
    """Names the settings that lie on a bound of the space, beyond which nothing was tried.

    Of a range without steps the outermost 5 % count. Two choices have no inside, and texts no
    order. Bounds that cannot be moved are left out: 0, one head, all of the augmentation.

    Args:
        space: `SearchSpace`.
        settings: dict from hyperparameter to its value in a trial.

    Returns:
        list of str, a sentence each.

    Example:
        >>> from lsmha_keras.studies.search_space import SearchSpace
        >>> space = SearchSpace.from_dict({"num_heads": [2, 8, 32]})
        >>> at_bounds(space, {"num_heads": 32})
        ['num_heads=32 is the largest that was tried: let the space reach further.']
    """
    sentences = []
    for name, value in settings.items():
        dimension = space.dimensions.get(name)
        if dimension is None and name.startswith("num_heads_"):  # of a schedule
            dimension = space.dimensions.get("num_heads")
        if dimension is None or not _is_ordered(dimension) or value is None:
            continue
        low, high = min(dimension.ends), max(dimension.ends)
        lowest, highest = _ENDS.get(dimension.name, (1 if isinstance(low, int) else 0, None))
        where = _place(dimension, low, high, value)
        shown = f"{name}={value:.4g}" if isinstance(value, float) else f"{name}={value}"
        for at, bound, end, word in (
            (where <= 0, low, lowest, "smallest"),
            (where >= 1, high, highest, "largest"),
        ):
            if at and bound != end:
                near = f"near {bound:g}, " if value != bound else ""
                sentences.append(
                    f"{shown} is {near}the {word} that was tried: let the space reach further."
                )
    return sentences


def _is_ordered(dimension):
    if dimension.choices is None:
        return True
    numbers = all(isinstance(c, (int, float)) for c in dimension.choices)
    return numbers and not isinstance(dimension.choices[0], bool) and len(dimension.choices) > 2


def _place(dimension, low, high, value):
    """Returns where a value lies, 0 or less at the low bound and 1 or more at the high one."""
    if dimension.choices is None and dimension.sampling == "log":
        low, high, value = map(math.log, (low, high, value))
    place = (value - low) / (high - low)
    whole = dimension.choices is not None or dimension.step or isinstance(dimension.low, int)
    return place if whole else (place - _NEAR) / (1 - 2 * _NEAR)
