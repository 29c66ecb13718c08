"""Settings of recipes and studies: keys with a type and a range, and TOML files that hold them."""

import dataclasses
import math
import numbers
import os
import pathlib
import tomllib
from typing import ClassVar

import tomli_w

from lsmha_keras.errors import InputError, nearest

_KINDS = {
    "int": "an integer",
    "float": "a number",
    "bool": "true or false",
    "str": "a text",
    "names": "a name or a list of names",
    "table": "a table",
    "switch": '"auto", true or false',
    "image_shape": "three positive integers (height, width, channels)",
    "image_size": "a positive integer or two (height, width)",
}


def recipe_field(kind, default=dataclasses.MISSING, optional=False, choices=None, **limits):
    """Declares a key of a recipe's section.

    Args:
        kind: str, one of "int", "float", "bool", "str", "names", "table", "switch", "image_shape"
            and "image_size".
        default: value when the key is absent; a key without one is required.
        optional: bool, whether the key may be absent or None.
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


class Section:
    """Base of the sections of recipes and studies, which are frozen dataclasses.

    Their fields come from `recipe_field`, and a class attribute `SECTION` is the name of the table
    in the TOML file. Every value is checked when a section is made, and numbers and lists are
    converted to their type.

    Raises:
        ValueError: naming the first key whose value has the wrong type or range.
    """

    SECTION: ClassVar[str]

    def __post_init__(self):
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            key = f"{self.SECTION}.{field.name}"
            object.__setattr__(self, field.name, _check_value(key, value, field.metadata))

    @classmethod
    def read(cls, values):
        """Makes a section from a TOML table.

        Args:
            values: dict.

        Returns:
            An instance of this class.

        Raises:
            ValueError: for an unknown key, naming the nearest, a missing one, or a bad value.
        """
        name = cls.SECTION
        if not isinstance(values, dict):
            raise InputError(f"[{name}] must be a table. Received: {name}={values!r}")
        fields = {field.name: field for field in dataclasses.fields(cls)}
        for key in values:
            if key not in fields:
                raise InputError(
                    f"[{name}] has the keys {', '.join(fields)}{nearest(key, fields)}. "
                    f"Received: {name}.{key}"
                )
        for key, field in fields.items():
            required = field.default is dataclasses.MISSING
            if required and field.default_factory is dataclasses.MISSING and key not in values:
                raise InputError(f"`{name}.{key}` is required. Received: [{name}] without {key}")
        return cls(**values)


def _check_value(key, value, metadata):
    if value is None and metadata["optional"]:
        return None
    kind, choices = metadata["kind"], metadata["choices"]
    value, fits = _CHECKS[kind](value)
    if fits and choices is not None and value not in choices:
        listed = ", ".join(map(str, choices))
        raise InputError(
            f"`{key}` must be one of {listed}{nearest(value, choices)}. Received: {key}={value!r}"
        )
    if not fits or not _within(value, metadata["limits"]):
        raise InputError(
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
    # TOML's booleans become Python's, which are ints too.
    return isinstance(value, numbers.Integral) and not isinstance(value, bool)


def _as_int(value):
    return (int(value), True) if _is_int(value) else (value, False)


def _as_float(value):
    if not isinstance(value, numbers.Real) or isinstance(value, bool) or not math.isfinite(value):
        return value, False
    return float(value), True


def _is_name(value):
    return isinstance(value, str) and value != ""


def _as_names(value):
    if not isinstance(value, (list, tuple)):
        return value, _is_name(value)
    return tuple(value), bool(value) and all(map(_is_name, value))


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
    "str": lambda value: (value, _is_name(value)),
    "names": _as_names,
    "table": lambda value: (value, isinstance(value, dict)),
    "switch": lambda value: (value, value == "auto" or isinstance(value, bool)),
    "image_shape": lambda value: _as_sizes(value, 3),
    "image_size": _as_image_size,
}


def read_toml(path, from_dict):
    """Reads a TOML file.

    Args:
        path: path of a TOML file.
        from_dict: function from nested dicts to a recipe or a study. The name of the file stands in
            for a missing `name`.

    Returns:
        What `from_dict` returns.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if it is not valid TOML or `from_dict` raises one; names the file.

    Example:

    ```python
    recipe = read_toml("recipe.toml", lsmha_keras.Recipe.from_dict)
    ```
    """
    path = pathlib.Path(path).expanduser()
    try:
        values = tomllib.loads(path.read_text(encoding="utf-8"))
        return from_dict({"name": path.stem, **values})
    except ValueError as error:  # `tomllib` and decoding errors are ValueErrors too
        raise InputError(f"{path}: {error}") from error


def find_toml(name, folder, kind):
    """Finds a file by its path, or by the name of a shipped one.

    Args:
        name: str or path.
        folder: `pathlib.Path` of the shipped files.
        kind: str, "recipe" or "study", for the error message.

    Returns:
        A `pathlib.Path`.

    Raises:
        ValueError: if there is none; names the nearest.

    Example:

    ```python
    find_toml("cct_2_3x2_h16_cifar100", lsmha_keras.presets.zoo_dir() / "recipes", "recipe")
    ```
    """
    path = pathlib.Path(os.fspath(name)).expanduser()
    if path.is_file():
        return path
    shipped = {path.stem: path for path in sorted(folder.glob("*.toml"))}
    if str(name) in shipped:
        return shipped[str(name)]
    raise InputError(
        f"A {kind} is a TOML file or one of the names {', '.join(shipped)}"
        f"{nearest(name, shipped)}. Received: {kind}={str(name)!r}"
    )


def to_toml_text(table):
    """Writes a dict as TOML.

    Args:
        table: dict of str keys. Values: str, bool, int, float, list or tuple, dict; None leaves the
            key out.

    Returns:
        str, which `tomllib.loads` reads back.

    Raises:
        TypeError: if a value has no TOML type.

    Example:
        >>> print(to_toml_text({"name": "a", "data": {"batch_size": 32, "split": None}}))
        name = "a"
        <BLANKLINE>
        [data]
        batch_size = 32
        <BLANKLINE>
    """
    return tomli_w.dumps(_without_none(table))


def _without_none(table):
    return {
        key: _without_none(value) if isinstance(value, dict) else value
        for key, value in table.items()
        if value is not None
    }


def differences(own, other):
    """Compares nested dicts.

    Args:
        own: dict of dicts and values.
        other: likewise.

    Returns:
        dict from each key that differs, such as "optimizer.learning_rate", to the pair of values
        (own, other's). None equals a missing key, and a list a tuple of the same values.

    Example:
        >>> differences({"data": {"batch_size": 32}}, {"data": {"batch_size": 64}})
        {'data.batch_size': (32, 64)}
    """
    own, other = _flatten(own), _flatten(other)
    keys = [*own, *(key for key in other if key not in own)]
    pairs = {key: (own.get(key), other.get(key)) for key in keys}
    return {key: pair for key, pair in pairs.items() if pair[0] != pair[1]}


def list_differences(found):
    """Describes the differences between existing settings and requested ones.

    Args:
        found: dict from `differences(existing, requested)`.

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
