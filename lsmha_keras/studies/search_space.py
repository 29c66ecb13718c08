"""The search space of a study."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Self

from lsmha_keras._imports import needed_package
from lsmha_keras.attention.registry import check_options
from lsmha_keras.errors import InputError, nearest
from lsmha_keras.studies.dimension import Dimension

SCHEDULES = ("same", "increasing", "decreasing", "free")
_SIZES = ("num_heads", "head_dim", "inner_dim", "num_conv_blocks", "num_layers")
ARCHITECTURE = (*_SIZES, "attention")
_TRAINING = ("learning_rate", "weight_decay", "augmentation_strength")
KNOWN = (*ARCHITECTURE, *_TRAINING)
_COUNTS = {name: 0 if name == "num_conv_blocks" else 1 for name in _SIZES}


# Extra keys in a dimension's table, and the constructor arguments they become.
_EXTRAS = {"num_heads": ("schedule", "schedule"), "attention": ("options", "attention_options")}


class SearchSpace:
    """The values that the trials of a study can take.

    Dimensions by name:

    - `num_heads`: one count for all transformer blocks, or one per block if `schedule` says so:
      "increasing" and "decreasing" draw the first and the last, and space the others evenly in the
      order of the choices; "free" draws each independently;
    - `head_dim`: width of a head; or `inner_dim`: head count times width. Without either, the heads
      share the width of the model;
    - `num_layers`, `num_conv_blocks`: number of blocks, and how many of them are convolutional;
    - `attention`: kinds of attention (`list_attention`), the same in all transformer blocks;
    - `learning_rate`, `weight_decay`;
    - `augmentation_strength`: 0 .. 1, see `scale_augmentation`;
    - any key of a recipe, such as "loss.label_smoothing".

    Args:
        dimensions: dict from name to `Dimension`.
        schedule: "same", "increasing", "decreasing" or "free": how `num_heads` varies over blocks.
        attention_options: dict from a kind of attention to a dict of options that replace its
            defaults.

    Raises:
        ValueError: for an unknown dimension (the nearest is named) or a bad value.

    Example:
        >>> space = SearchSpace.from_dict({"num_heads": [2, 16], "num_conv_blocks": 1})
        >>> space.names
        ('num_heads', 'num_conv_blocks')
    """

    def __init__(
        self,
        dimensions: Any,
        schedule: str = "same",
        attention_options: Mapping[str, Mapping[str, Any]] | None = None,
    ) -> None:
        self.dimensions = dict(dimensions)
        self.schedule = schedule
        self.attention_options = dict(attention_options or {})
        for name, dimension in self.dimensions.items():
            if name not in KNOWN and "." not in name:
                raise InputError(
                    f"The dimensions of a space are {', '.join(KNOWN)}{nearest(name, KNOWN)}, and "
                    f'keys of a recipe such as "loss.label_smoothing". Received: space.{name}'
                )
            if name in _COUNTS:
                _check_counts(name, dimension, _COUNTS[name])
        if schedule not in SCHEDULES:
            raise InputError(
                f"`schedule` must be one of {', '.join(SCHEDULES)}{nearest(schedule, SCHEDULES)}. "
                f"Received: space.num_heads.schedule={schedule!r}"
            )
        self._check_attention()

    def _check_attention(self):
        searched = self.dimensions.get("attention")
        kinds = () if searched is None else searched.ends
        if not all(isinstance(kind, str) for kind in kinds):
            raise InputError(
                "Kinds of attention are names; `lsmha_keras.list_attention()` lists them. "
                f"Received: space.attention={searched.to_value()!r}"
            )
        for kind, options in self.attention_options.items():
            if kind not in kinds or not isinstance(options, Mapping):
                raise InputError(
                    "Options are tables, each for a kind of attention in the space"
                    f"{nearest(kind, kinds)}. Received: space.attention.options.{kind}={options!r}"
                )
        for kind in kinds:
            check_options(kind, self.attention_options.get(kind))

    @classmethod
    def from_dict(cls, table: Mapping[str, Any]) -> Self:
        """Reads a space from nested dicts.

        Args:
            table: dict from name to a value for `Dimension.from_value`. The dict of `num_heads` may
                also have a `schedule`, that of `attention` may have `options`, a dict of dicts by
                kind.

        Returns:
            A `SearchSpace`.
        """
        table, extras = dict(table), {}
        for name, (key, argument) in _EXTRAS.items():
            if isinstance(table.get(name), dict) and key in table[name]:
                table[name] = dict(table[name])
                extras[argument] = table[name].pop(key)
        return cls({n: Dimension.from_value(n, value) for n, value in table.items()}, **extras)

    def to_dict(self) -> dict[str, Any]:
        """Returns nested dicts, which `from_dict` reads back."""
        table = {name: dimension.to_value() for name, dimension in self.dimensions.items()}
        own = {"schedule": self.schedule, "attention_options": self.attention_options}
        for name, (key, argument) in _EXTRAS.items():
            if own[argument] not in ("same", {}):
                value = table[name]
                listed = {"choices": list(self.dimensions[name].choices or ())}
                table[name] = {**(value if isinstance(value, dict) else listed), key: own[argument]}
        return table

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the dimensions, as a tuple."""
        return tuple(self.dimensions)

    @property
    def _heads(self):
        return self.dimensions["num_heads"]

    def check(self, defaults: Mapping[str, Any]) -> None:
        """Checks the space against the base model.

        Args:
            defaults: dict with `num_layers`, `num_conv_blocks`, `hidden_dim`, `num_heads` and
                optionally `head_dim` and `blocks` of the base model.

        Raises:
            ValueError: if nothing varies, or values contradict each other.
        """
        if not any(dimension.varies for dimension in self.dimensions.values()):
            raise InputError(
                "A space needs at least one dimension with more than one value, such as "
                f"num_heads = [2, 8, 32]. Received: space={self.to_dict()}"
            )
        if "num_heads" not in self.dimensions and self.schedule != "same":
            raise InputError(f"A schedule needs `num_heads`. Received: {self.schedule!r}")
        self._check_blocks(defaults)
        self._check_widths(defaults)

    def _check_blocks(self, defaults):
        if defaults.get("blocks"):
            counts = [n for n in ("num_layers", "num_conv_blocks") if n in self.dimensions]
            if counts or self.schedule != "same":
                raise InputError(
                    "The base model sets `blocks`: leave num_layers, num_conv_blocks and a "
                    "schedule of heads out of the space. Received: "
                    f"blocks={defaults['blocks']}, space={self.to_dict()}"
                )
            return
        conv = self._values("num_conv_blocks", defaults)
        layers = self._values("num_layers", defaults)
        if max(conv) >= min(layers):
            raise InputError(
                "A model needs at least one transformer block: num_conv_blocks must stay below "
                f"num_layers. Received: num_conv_blocks up to {max(conv)}, num_layers from "
                f"{min(layers)}"
            )

        heads = defaults["num_heads"]
        blocks = {count - fewer for count in layers for fewer in conv}
        listed = isinstance(heads, (list, tuple)) and "num_heads" not in self.dimensions
        if listed and blocks != {len(heads)}:
            raise InputError(
                "A list of head counts needs one entry per transformer block, but their number "
                f"varies: put num_heads into the space, too. Received: num_heads={list(heads)}, "
                f"{min(blocks)} to {max(blocks)} transformer blocks"
            )

    def _check_widths(self, defaults):
        heads = self._values("num_heads", defaults)
        if "head_dim" in self.dimensions and "inner_dim" in self.dimensions:
            raise InputError(
                "`head_dim` and `inner_dim` exclude each other: inner_dim is heads times head_dim. "
                "Received: a space with both"
            )
        own_width = defaults.get("head_dim") is not None and "inner_dim" not in self.dimensions
        if "head_dim" in self.dimensions or own_width:
            return
        key = "inner_dim" if "inner_dim" in self.dimensions else "hidden_dim"
        for width in self._values(key, defaults):
            odd = [count for count in heads if width % count]
            if odd:
                raise InputError(
                    f"{key} must be a multiple of every head count; or give `head_dim` (any "
                    f"width) or another `inner_dim`. Received: num_heads={odd}, {key}={width}"
                )

    def _values(self, name, defaults):
        if name in self.dimensions:
            return self.dimensions[name].values
        value = defaults[name]
        return tuple(value) if isinstance(value, (list, tuple)) else (value,)

    def declare(self, hp: Any, defaults: Mapping[str, Any]) -> dict[str, Any]:
        """Declares the space for KerasTuner and returns its values in a trial.

        Args:
            hp: `keras_tuner.HyperParameters`.
            defaults: as for `check`.

        Returns:
            A dict from dimension to value; `num_heads` is a list with one count per transformer
            block unless the schedule is "same".
        """
        values = {
            name: dimension.declare(hp)
            for name, dimension in self.dimensions.items()
            if name != "num_heads"
        }
        if "num_heads" in self.dimensions:
            most = max(self._values("num_layers", defaults)) - min(
                self._values("num_conv_blocks", defaults)
            )
            blocks = values.get("num_layers", defaults["num_layers"]) - values.get(
                "num_conv_blocks", defaults["num_conv_blocks"]
            )
            values["num_heads"] = self._declare_heads(hp, blocks, most)
        elif "inner_dim" in self.dimensions:
            values["num_heads"] = defaults["num_heads"]
        return values

    def _declare_heads(self, hp, blocks, most):
        heads = self._heads
        if self.schedule == "same":
            return heads.declare(hp)
        if self.schedule == "free":
            # Declare as many as the deepest trial needs, so that every trial has the same names.
            return [heads.declare(hp, f"num_heads_{block}") for block in range(most)][:blocks]
        ends = [heads.declare(hp, f"num_heads_{end}") for end in ("first", "last")]
        counts = sorted(heads.values)
        low, high = sorted(counts.index(count) for count in ends)
        steps = [low + (high - low) * block / max(1, blocks - 1) for block in range(blocks)]
        # Round half up; Python's `round` would round half to even.
        course = [counts[int(step + 0.5)] for step in steps]
        return course if self.schedule == "increasing" else course[::-1]

    def probes(self, defaults: Mapping[str, Any]) -> Any:
        """Yields trials that suffice to check the validity of all; needs no KerasTuner.

        One dimension at a time goes through its choices or ends, with the first value elsewhere.

        Args:
            defaults: as for `check`.

        Yields:
            A dict, as from `declare`.
        """
        first = self.declare(_FirstValues(), defaults)
        yield first
        for name, dimension in self.dimensions.items():
            if name not in ARCHITECTURE:  # `check` covers those
                yield from ({**first, name: value} for value in dimension.ends)

    def backbone_arguments(self, values: Mapping[str, Any]) -> dict[str, Any]:
        """Returns the arguments of `CCTBackbone` among the values of a trial.

        Args:
            values: dict that `declare` returned.

        Returns:
            A dict.
        """
        arguments = {name: values[name] for name in ARCHITECTURE if name in values}
        inner_dim = arguments.pop("inner_dim", None)
        if inner_dim is not None:
            heads = arguments["num_heads"]
            arguments["head_dim"] = (
                [inner_dim // count for count in heads]
                if isinstance(heads, list)
                else inner_dim // heads
            )
        if "attention" in arguments:
            # Also without options: those of the base model belong to another kind.
            arguments["attention_options"] = dict(
                self.attention_options.get(arguments["attention"], {})
            )
        return arguments


class _FirstValues:
    """Stands in for `keras_tuner.HyperParameters`."""

    def Fixed(self, name, value):
        return value

    def Choice(self, name, values):
        return values[0]

    def Int(self, name, low, high, **kwargs):
        return low

    Float = Int


def _check_counts(name, dimension, least):
    bad = dimension.choices if dimension.choices is not None else (dimension.low, dimension.high)
    bad = [value for value in bad if not isinstance(value, int) or isinstance(value, bool)]
    if bad or dimension.smallest < least:
        raise InputError(
            f"`{name}` must be whole numbers of at least {least}. "
            f"Received: space.{name}={dimension.to_value()!r}"
        )


def import_keras_tuner():
    """Imports KerasTuner, an optional dependency.

    Returns:
        The module `keras_tuner`.

    Raises:
        ImportError: if it, or an undeclared dependency of it, is not installed; names the extra to
            install.

    Example:
        >>> import_keras_tuner().__name__
        'keras_tuner'
    """
    return needed_package("keras_tuner", "tuner", "Searching needs KerasTuner")
