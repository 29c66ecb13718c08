"""Writes TOML. The standard library only reads it."""

import json
import math
import re

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
