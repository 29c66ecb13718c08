"""Keys of a recipe: their type, range and default, checked with a message that names the key."""

import dataclasses
import math
import numbers

from lsmha_keras.nearest import nearest

_KINDS = {
    "int": "an integer",
    "float": "a number",
    "bool": "true or false",
    "str": "a text",
    "table": "a table",
    "switch": '"auto", true or false',
    "image_shape": "three positive integers (height, width, channels)",
    "image_size": "a positive integer or two (height, width)",
}


def recipe_field(kind, default=dataclasses.MISSING, optional=False, choices=None, **limits):
    """Declares a key of a recipe's section.

    Args:
        kind: str, one of "int", "float", "bool", "str", "table", "switch", "image_shape" and
            "image_size".
        default: value when the key is absent; a key without one is required.
        optional: bool, whether the key may be left out and is then None.
        choices: the valid values, or None for no restriction.
        **limits: `at_least`, `above`, `at_most`, `below`: bounds of a number.

    Returns:
        A `dataclasses.field`.

    Example:
        >>> import dataclasses
        >>> @dataclasses.dataclass
        ... class Section:
        ...     rate: float = recipe_field("float", 0.5, at_least=0.0, below=1.0)
        >>> Section().rate
        0.5
    """
    metadata = {"kind": kind, "optional": optional, "choices": choices, "limits": limits}
    if optional:
        default = None
    if kind == "table":
        return dataclasses.field(default_factory=dict, metadata=metadata)
    return dataclasses.field(default=default, metadata=metadata)


def check_section(section):
    """Checks every value of a section and converts numbers and lists to their type.

    Args:
        section: instance of a frozen dataclass whose fields come from `recipe_field`, with a class
            attribute `SECTION`.

    Raises:
        ValueError: naming the first key whose value has the wrong type or range.
    """
    for field in dataclasses.fields(section):
        value = getattr(section, field.name)
        key = f"{section.SECTION}.{field.name}"
        object.__setattr__(section, field.name, _check_value(key, value, field.metadata))


def read_section(section_class, values):
    """Makes a section from a TOML table.

    Args:
        section_class: dataclass whose fields come from `recipe_field`.
        values: dict.

    Returns:
        An instance of `section_class`.

    Raises:
        ValueError: for an unknown key, naming the nearest, a missing one, or a bad value.
    """
    name = section_class.SECTION
    if not isinstance(values, dict):
        raise ValueError(f"[{name}] must be a table. Received: {name}={values!r}")
    fields = {field.name: field for field in dataclasses.fields(section_class)}
    for key in values:
        if key not in fields:
            raise ValueError(
                f"[{name}] has the keys {', '.join(fields)}{nearest(key, fields)}. "
                f"Received: {name}.{key}"
            )
    for key, field in fields.items():
        required = field.default is dataclasses.MISSING
        if required and field.default_factory is dataclasses.MISSING and key not in values:
            raise ValueError(f"`{name}.{key}` is required. Received: [{name}] without {key}")
    return section_class(**values)


def _check_value(key, value, metadata):
    if value is None and metadata["optional"]:
        return None
    kind, choices = metadata["kind"], metadata["choices"]
    value, fits = _CHECKS[kind](value)
    if fits and choices is not None and value not in choices:
        listed = ", ".join(map(str, choices))
        raise ValueError(
            f"`{key}` must be one of {listed}{nearest(value, choices)}. Received: {key}={value!r}"
        )
    if not fits or not _within(value, metadata["limits"]):
        raise ValueError(
            f"`{key}` must be {_KINDS[kind]}{_describe(metadata['limits'])}. "
            f"Received: {key}={value!r}"
        )
    return value


def _within(value, limits):
    tests = {
        "at_least": lambda bound: value >= bound,
        "above": lambda bound: value > bound,
        "at_most": lambda bound: value <= bound,
        "below": lambda bound: value < bound,
    }
    return all(tests[name](bound) for name, bound in limits.items())


def _describe(limits):
    signs = {"at_least": ">=", "above": ">", "at_most": "<=", "below": "<"}
    return "".join(f", {signs[name]} {bound:g}" for name, bound in limits.items())


def _is_int(value):
    # TOML's true and false are Python's, and those are ints.
    return isinstance(value, numbers.Integral) and not isinstance(value, bool)


def _as_int(value):
    return (int(value), True) if _is_int(value) else (value, False)


def _as_float(value):
    if not isinstance(value, numbers.Real) or isinstance(value, bool) or not math.isfinite(value):
        return value, False
    return float(value), True


def _as_sizes(value, count):
    fits = isinstance(value, (list, tuple)) and len(value) == count
    fits = fits and all(_is_int(side) and side > 0 for side in value)
    return (tuple(value), True) if fits else (value, False)


def _as_image_size(value):
    return (int(value), value > 0) if _is_int(value) else _as_sizes(value, 2)


_CHECKS = {
    "int": _as_int,
    "float": _as_float,
    "bool": lambda value: (value, isinstance(value, bool)),
    "str": lambda value: (value, isinstance(value, str) and value != ""),
    "table": lambda value: (value, isinstance(value, dict)),
    "switch": lambda value: (value, value == "auto" or isinstance(value, bool)),
    "image_shape": lambda value: _as_sizes(value, 3),
    "image_size": _as_image_size,
}
