"""A dimension of a search space, and a check whether the best value lies on its bound."""

import dataclasses
import math
import numbers

from lsmha_keras.errors import InputError, nearest

# Samples of a continuous range rarely hit its ends; this share of the range counts as the end.
_NEAR = 0.05
# Natural limits, beyond which no space can reach; others are 1 for ints and 0 for floats.
_ENDS = {"num_conv_blocks": (0, None), "augmentation_strength": (0, 1)}
SAMPLINGS = ("linear", "log")
_KEYS = ("choices", "min", "max", "step", "sampling")


@dataclasses.dataclass(frozen=True)
class Dimension:
    """A fixed value, a choice or a range.

    Attributes:
        name: str.
        choices: tuple of values, with a single one if the dimension is fixed; `None` for a range.
        low: number, the smallest value of a range.
        high: number, the largest value of a range, inclusive.
        step: number or None, spacing of a range's values.
        sampling: "linear" or "log", how a range is sampled.

    Example:
        >>> Dimension.from_value("learning_rate", {"min": 1e-4, "max": 1e-2, "sampling": "log"})
        Dimension(name='learning_rate', choices=None, low=0.0001, high=0.01, step=None, \
sampling='log')
    """

    name: str
    choices: tuple | None = None
    low: float | None = None
    high: float | None = None
    step: float | None = None
    sampling: str = "linear"

    @classmethod
    def from_value(cls, name, value):
        """Reads a dimension.

        Args:
            name: str.
            value: a fixed value; a list of choices; or a dict with `choices`, or with `min`, `max`
                and optionally `step` and `sampling`.

        Returns:
            A `Dimension`.

        Raises:
            ValueError: for an unknown key, naming the nearest, or a bad value.
        """
        if not isinstance(value, dict):
            value = {"choices": value if isinstance(value, (list, tuple)) else [value]}
        for key in value:
            if key not in _KEYS:
                raise InputError(
                    f"The keys of a dimension are {', '.join(_KEYS)}{nearest(key, _KEYS)}. "
                    f"Received: space.{name}.{key}"
                )
        if "choices" in value:
            return cls(name, _read_choices(name, value))
        return _read_range(cls, name, value)

    @property
    def varies(self):
        """Whether the dimension has more than one value."""
        return self.choices is None or len(self.choices) > 1

    @property
    def smallest(self):
        """The smallest value."""
        return self.low if self.choices is None else min(self.choices)

    @property
    def ends(self):
        """Values to check in place of all: every choice, or both ends of a range."""
        return self.choices if self.choices is not None else (self.low, self.high)

    @property
    def values(self):
        """All values of a dimension of integers, as a tuple."""
        if self.choices is not None:
            return self.choices
        return tuple(range(self.low, self.high + 1, self.step or 1))

    def declare(self, hp, name=None):
        """Declares the dimension for KerasTuner and returns its value in a trial.

        Args:
            hp: `keras_tuner.HyperParameters`.
            name: str, name of the hyperparameter; None for the dimension's own.

        Returns:
            The value.
        """
        name = name or self.name
        if not self.varies:
            return hp.Fixed(name, self.choices[0])
        if self.choices is not None:
            value = hp.Choice(name, list(self.choices))
            # KerasTuner turns bools into ints.
            return bool(value) if isinstance(self.choices[0], bool) else value
        # In a logarithmic range, KerasTuner takes `step` as a factor.
        make = hp.Int if isinstance(self.low, int) else hp.Float
        step = self.step if self.step is not None else (1 if make == hp.Int else None)
        if self.sampling == "log":
            step = None
        return make(name, self.low, self.high, step=step, sampling=self.sampling)

    def to_value(self):
        """Returns what `from_value` reads back."""
        if self.choices is not None:
            return list(self.choices) if self.varies else self.choices[0]
        return {
            "min": self.low,
            "max": self.high,
            **({} if self.step is None else {"step": self.step}),
            "sampling": self.sampling,
        }


def _read_choices(name, value):
    choices = value["choices"]
    if len(value) > 1:
        raise InputError(
            f"A dimension has either `choices` or `min` and `max`. Received: space.{name}={value!r}"
        )
    if not isinstance(choices, (list, tuple)) or not choices:
        raise InputError(
            f"A dimension needs at least one choice. Received: space.{name}={choices!r}"
        )
    kinds = {_kind(name, choice) for choice in choices}
    if len(kinds) > 1 or len(set(choices)) != len(choices):
        raise InputError(
            "The choices of a dimension must be different and of one type (0.0 rather than 0 "
            f"among fractions). Received: space.{name}={list(choices)!r}"
        )
    return tuple(choices)


def _kind(name, value):
    if isinstance(value, (bool, str)) or _is_number(value):
        return type(value)
    raise InputError(
        "A choice must be a finite number, a text, true or false. "
        f"Received: {value!r} in space.{name}"
    )


def _is_number(value):
    real = isinstance(value, numbers.Real) and not isinstance(value, bool)
    return real and math.isfinite(value)


def _read_range(cls, name, value):
    text = f"Received: space.{name}={value!r}"
    missing = [key for key in ("min", "max") if key not in value]
    if missing:
        raise InputError(f"A range needs `min` and `max`; otherwise give `choices`. {text}")
    for key in ("min", "max", "step"):
        if key in value and not _is_number(value[key]):
            raise InputError(f"`{key}` must be a finite number. {text}")
    low, high, step = value["min"], value["max"], value.get("step")
    sampling = value.get("sampling", "linear")
    if low >= high:
        raise InputError(f"`min` must be below `max`. {text}")
    if sampling not in SAMPLINGS:
        raise InputError(
            f"`sampling` must be {' or '.join(SAMPLINGS)}{nearest(sampling, SAMPLINGS)}. {text}"
        )
    if sampling == "log" and (low <= 0 or step is not None):
        raise InputError(f"A logarithmic range has a `min` above 0 and no `step`. {text}")
    if step is not None and not 0 < step <= high - low:
        raise InputError(f"`step` must be above 0 and fit into the range. {text}")
    if not all(isinstance(number, int) for number in (low, high, 1 if step is None else step)):
        low, high = float(low), float(high)
    return cls(name, None, low, high, step, sampling)


def at_bounds(space, settings):
    """Names the settings that lie on a bound of the space, where larger spaces may do better.

    In a continuous range, the outermost 5 % count as the bound. Dimensions with two choices, which
    have no interior, and of texts, which have no order, are skipped. So are natural limits: 0, one
    head, full augmentation.

    Args:
        space: `SearchSpace`.
        settings: dict from hyperparameter to its value in a trial.

    Returns:
        list of str, one sentence per setting.

    Example:
        >>> from lsmha_keras.studies.search_space import SearchSpace
        >>> space = SearchSpace.from_dict({"num_heads": [2, 8, 32]})
        >>> at_bounds(space, {"num_heads": 32})
        ['num_heads=32 is the largest that was tried: let the space reach further.']
    """
    sentences = []
    for name, value in settings.items():
        dimension = space.dimensions.get(name)
        if dimension is None and name.startswith("num_heads_"):  # one of a schedule
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
    """Returns a value's position: at most 0 at the low bound, at least 1 at the high bound."""
    if dimension.choices is None and dimension.sampling == "log":
        low, high, value = map(math.log, (low, high, value))
    place = (value - low) / (high - low)
    whole = dimension.choices is not None or dimension.step or isinstance(dimension.low, int)
    return place if whole else (place - _NEAR) / (1 - 2 * _NEAR)
