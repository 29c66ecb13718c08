"""TOML files of recipes and studies: found, read, written and compared."""

import json
import math
import os
import pathlib
import re
import tomllib

from lsmha_keras.nearest import nearest


def read_toml(path, from_dict):
    """Reads a file that is named after itself.

    Args:
        path: path of a TOML file.
        from_dict: function from nested dicts to a recipe or a study. A file without a `name` gives
            its own.

    Returns:
        What `from_dict` returns.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if it is no TOML, or `from_dict` refuses it; names the file.

    Example:

    ```python
    recipe = read_toml("recipe.toml", lsmha_keras.Recipe.from_dict)
    ```
    """
    path = pathlib.Path(path).expanduser()
    try:
        values = tomllib.loads(path.read_text(encoding="utf-8"))
        return from_dict({"name": path.stem, **values})
    except ValueError as error:  # also what `tomllib` and a wrong encoding raise
        raise ValueError(f"{path}: {error}") from error


def find_toml(name, folder, kind):
    """Finds a file by its path or by the name of one that comes with the package.

    Args:
        name: str or path.
        folder: `pathlib.Path` with the files that come with the package.
        kind: str, what it is, for the message: "recipe" or "study".

    Returns:
        A `pathlib.Path`.

    Raises:
        ValueError: if there is none, naming the nearest.

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
    raise ValueError(
        f"A {kind} is a TOML file or one of the names {', '.join(shipped)}"
        f"{nearest(name, shipped)}. Received: {kind}={str(name)!r}"
    )


_BARE_KEY = re.compile(r"[A-Za-z0-9_-]+")


def to_toml_text(table):
    """Writes a dict as TOML.

    Args:
        table: dict of str keys. Values: str, bool, int, float, list or tuple, dict. Dicts of the
            first level become sections, deeper ones inline tables; None leaves the key out.

    Returns:
        str, which `tomllib.loads` reads back.

    Raises:
        TypeError: for a value that TOML has no type for.

    Example:
        >>> print(to_toml_text({"name": "a", "data": {"batch_size": 32, "split": None}}))
        name = "a"
        <BLANKLINE>
        [data]
        batch_size = 32
        <BLANKLINE>
    """
    plain = {key: value for key, value in table.items() if not isinstance(value, dict)}
    lines = _assignments(plain)
    for name, section in table.items():
        if isinstance(section, dict):
            lines += ["", f"[{_key(name)}]", *_assignments(section)]
    return "\n".join(lines).lstrip("\n") + "\n"


def _assignments(table):
    return [f"{_key(key)} = {_value(v)}" for key, v in table.items() if v is not None]


def _key(key):
    return key if _BARE_KEY.fullmatch(key) else _text(key)


def _text(value):
    # JSON's strings are TOML's, but for DEL, which TOML wants escaped.
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")


def _value(value):
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        return _text(value)
    if isinstance(value, int):
        return str(value)
    if isinstance(value, float):
        return repr(value) if math.isfinite(value) else str(value)
    if isinstance(value, (list, tuple)):
        return "[" + ", ".join(map(_value, value)) + "]"
    if isinstance(value, dict):
        pairs = [f"{_key(key)} = {_value(v)}" for key, v in value.items() if v is not None]
        return "{ " + ", ".join(pairs) + " }" if pairs else "{}"
    raise TypeError(f"TOML has no type for {type(value).__name__}. Received: {value!r}")


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
