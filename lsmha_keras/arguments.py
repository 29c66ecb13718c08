"""Checks and conversions of arguments that layers and models share."""

import numpy as np

from lsmha_keras.errors import InputError


def plain(value):
    """Converts NumPy numbers, alone or in a list or tuple, to Python's, which configs can hold."""
    if isinstance(value, (list, tuple)):
        return type(value)(map(plain, value))
    if isinstance(value, np.ndarray):
        return value.tolist()
    return value.item() if isinstance(value, np.generic) else value


def own_arguments(given):
    """Returns the arguments of a constructor as its config holds them.

    Args:
        given: `locals()`, from the first line of an `__init__`.

    Returns:
        A dict by name, NumPy's numbers as Python's, without `self`, `dtype` and `kwargs`.
    """
    # `__class__` is among them where the constructor calls `super()`.
    others = ("self", "__class__", "dtype", "kwargs")
    return {name: plain(value) for name, value in given.items() if name not in others}


def positive_int(name, value):
    """Checks a size and returns it as an int.

    Args:
        name: name of the argument, for the message.
        value: int, of Python or NumPy.

    Raises:
        ValueError: if it is not an integer or is below 1.
    """
    value = plain(value)
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise InputError(f"`{name}` must be a positive int. Received: {name}={value!r}")
    return value


def whole_number(name, value, lowest, highest=None):
    """Checks a count and returns it as an int.

    Args:
        name: name of the argument, for the message.
        value: int, of Python or NumPy.
        lowest: int, the smallest that is allowed.
        highest: int, the largest, or `None` for any.

    Raises:
        ValueError: if it is not an integer or is out of range.
    """
    found = plain(value)
    is_int = isinstance(found, int) and not isinstance(found, bool)
    if not is_int or found < lowest or (highest is not None and found > highest):
        limits = f"from {lowest} on" if highest is None else f"from {lowest} to {highest}"
        raise InputError(f"`{name}` must be an int {limits}. Received: {name}={value!r}")
    return found


def number_in(interval, name, value):
    """Checks a rate or a share and returns it as a number of Python.

    Args:
        interval: str, the values that are allowed: `"[0, 1)"` with 0 and without 1.
        name: name of the argument, for the message.
        value: int or float, of Python or NumPy.

    Raises:
        ValueError: if it is not a number or is out of range, as NaN always is.
    """
    low, high = map(float, interval[1:-1].split(","))
    found = plain(value)
    inside = is_number(found) and low <= found <= high
    open_ends = [low] * (interval[0] == "(") + [high] * (interval[-1] == ")")
    if not inside or found in open_ends:
        raise InputError(f"`{name}` must be in {interval}. Received: {name}={value!r}")
    return found


def positive_number(name, value):
    """Checks a number above 0, and returns it as one of Python; infinity is none.

    Raises:
        ValueError: names the argument.
    """
    found = plain(value)
    if not is_number(found) or not 0 < found < float("inf"):
        raise InputError(f"`{name}` must be a positive number. Received: {name}={value!r}")
    return found


def is_number(value):
    """Returns whether a value is an int or a float; a bool is neither."""
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def grid(grid_shape):
    """Checks a grid and returns `(grid_height, grid_width)` as a tuple of ints.

    Args:
        grid_shape: sequence of two ints.

    Raises:
        ValueError: if it is not two positive ints.
    """
    sides = tuple(plain(grid_shape))
    if len(sides) != 2 or not all(isinstance(side, int) and side > 0 for side in sides):
        raise InputError(
            f"`grid_shape` must be two positive ints. Received: grid_shape={grid_shape}"
        )
    return sides


def check_channels_last(data_format=None):
    """Refuses images with channels first.

    Args:
        data_format: str, or `None` for `keras.config.image_data_format()`.

    Raises:
        ValueError: if it is not `"channels_last"`; says what to do.
    """
    import keras  # here, as `Predictor` checks its arguments without Keras

    found = data_format or keras.config.image_data_format()
    if found != "channels_last":
        raise InputError(
            "Images have shape (batch, height, width, channels) on every backend: call "
            '`keras.config.set_image_data_format("channels_last")`, and bring images into that '
            f"order with `np.moveaxis(images, 1, -1)`. Received: data_format={found!r}"
        )
