"""Deprecated spellings. They work for one more release, with a `DeprecationWarning`.

Every changed spelling belongs in one of these tables; the warning names the old and the new one.
"""

import functools
import sys
import warnings
from collections.abc import Callable
from typing import Any, TypeVar

F = TypeVar("F", bound=Callable[..., Any])

# Names of the package.
NAMES = {"SingleHeadPerformance": "SHPCallback", "RandAugment": "RandAugmentPerImage"}

# Arguments, by the function or class that takes them.
ARGUMENTS = {
    "SHPCallback": {"directory": "output_dir"},
    "search": {"directory": "output_dir"},
    # As in Keras's layers of these names.
    "CutMix": {"alpha": "factor"},
    "RandomErasing": {"probability": "factor", "area": "scale"},
}

# The former order of arguments that were positional and are now keyword-only.
POSITIONS = {
    "measure_committee": ("batch_size", "verbose", "split", "data_dir"),
}

# Options of the command line, by command.
OPTIONS = {
    "train": {"--no-resume": "--fresh"},
    "tune": {"--no-resume": "--fresh"},
    "shp": {"--out": "--output", "--no-classical": "--no-head-scores"},
    "committee": {"--out": "--output"},
    "export": {"--out": "--output", "--force": "--overwrite"},
    "bench": {"--again": "--fresh"},
}


def warn_of(old, new, stacklevel=3):
    """Warns that a spelling is deprecated.

    Args:
        old: str, the spelling that was given.
        new: str, the one to give.
        stacklevel: int, of `warnings.warn`: 2 is the caller of this function.
    """
    message = f"{old} is now {new}; the old spelling works for one more release"
    warnings.warn(message, DeprecationWarning, stacklevel=stacklevel)


def tell_of(old, new):
    """Warns of an old spelling on the command line, where Python would not show the warning.

    Args:
        old: str, the spelling that was given.
        new: str, the one to give.
    """
    print(
        f"lsmha: {old} is now {new}; the old spelling works for one more release", file=sys.stderr
    )
    warn_of(old, new)


def takes_old_arguments(function: F) -> F:
    """Decorates a function of the tables above, or an `__init__` (not that of a Keras layer).

    Args:
        function: the function; it takes the new spellings.

    Returns:
        A function that takes the old ones, too.

    Raises:
        TypeError: from a call with both spellings of an argument, or too many positions.
    """
    name = function.__qualname__.removesuffix(".__init__")
    renamed, positions = ARGUMENTS.get(name, {}), POSITIONS.get(name, ())
    places = function.__code__.co_argcount  # without keyword-only arguments

    @functools.wraps(function)
    def wrapper(*args, **kwargs):
        by_place = dict(zip(positions, args[places:], strict=False))
        for argument in by_place:
            warn_of(f"`{argument}` by position in {name}", f"`{argument}=`")
        for old in renamed.keys() & kwargs.keys():
            warn_of(f"`{old}` of {name}", f"`{renamed[old]}`")
            by_place[renamed[old]] = kwargs.pop(old)
        if twice := by_place.keys() & kwargs.keys():
            raise TypeError(f"{name}() got two values for {', '.join(sorted(twice))}")
        others = args[:places] + args[places + len(positions) :]
        return function(*others, **by_place, **kwargs)

    return wrapper  # type: ignore[return-value]


def given(name, argument, value, kwargs):
    """Returns the value of an argument of a Keras layer, in either spelling.

    Keras looks up the signature of a layer's `__init__`, which `takes_old_arguments` would hide.

    Args:
        name: str, of the layer.
        argument: str, the new spelling.
        value: value of the new spelling, or its default.
        kwargs: the layer's other arguments, from which the old spelling is removed.

    Returns:
        `value`, or what the old spelling has in `kwargs`.
    """
    for old, new in ARGUMENTS[name].items():
        if new == argument and old in kwargs:
            warn_of(f"`{old}` of {name}", f"`{new}`", stacklevel=4)
            return kwargs.pop(old)
    return value


def with_new_options(arguments):
    """Replaces old options of a command line.

    Args:
        arguments: list of str, without the program's name.

    Returns:
        The list with current options.

    Example:
        >>> with_new_options(["presets", "--json"])
        ['presets', '--json']
    """
    command = next((argument for argument in arguments if argument in OPTIONS), None)
    renamed, arguments = OPTIONS.get(command, {}), list(arguments)
    for place, argument in enumerate(arguments):
        option, equals, value = argument.partition("=")
        if option in renamed:
            tell_of(f"`lsmha {command} {option}`", f"`{renamed[option]}`")
            arguments[place] = renamed[option] + equals + value
    return arguments
