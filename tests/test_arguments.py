"""Checks of arguments: what they take, what they return, and that they name what they refuse."""

import sys

import numpy as np
import pytest

from lsmha_keras.arguments import number_in, positive_int, positive_number, whole_number

pytestmark = pytest.mark.backend_free

NAN, INFINITY = float("nan"), float("inf")


@pytest.mark.parametrize(
    ("interval", "allowed", "refused"),
    [
        ("[0, 1)", [0, 0.0, 0.999], [1, 1.0, -1e-9]),
        ("(0, 1]", [1, 1e-9], [0, 0.0, 1.5]),
        ("[0, 1]", [0, 1, 0.5], [-0.1, 1.1]),
    ],
)
def test_intervals(interval, allowed, refused):
    for value in allowed:
        assert number_in(interval, "rate", value) == value
    for value in [*refused, NAN, INFINITY, True, "0.5", None, [0.5]]:
        with pytest.raises(ValueError, match="`rate` must be in") as caught:
            number_in(interval, "rate", value)
        assert interval in str(caught.value) and f"Received: rate={value!r}" in str(caught.value)


def test_numbers_of_numpy_become_those_of_python():
    checked = [
        number_in("[0, 1)", "rate", np.float32(0.5)),
        positive_number("factor", np.float64(2)),
        whole_number("count", np.int64(3), 0),
        positive_int("count", np.int32(3)),
    ]
    assert [type(value) for value in checked] == [float, float, int, int]


def test_counts_within_limits():
    assert whole_number("count", 0, 0) == 0 and whole_number("count", 4, 1, 4) == 4
    for value in (-1, 5, 1.0, True, "2", None):
        with pytest.raises(ValueError, match="`count` must be an int from 0 to 4. Received: count"):
            whole_number("count", value, 0, 4)
    with pytest.raises(ValueError, match="must be an int from 1 on. Received: count=0"):
        whole_number("count", 0, 1)


def test_positive_numbers():
    assert positive_number("factor", 1e-30) == 1e-30
    for value in (0, -1.0, NAN, INFINITY, True, "1"):
        with pytest.raises(ValueError, match="must be a positive number. Received: factor="):
            positive_number("factor", value)


def test_rates_of_other_types_are_named_by_layers():
    """A text compared with a number was a `TypeError` that named neither."""
    pytest.importorskip("keras")
    import lsmha_keras

    for make in (
        lambda: lsmha_keras.LargeScaleMultiHeadAttention(2, dropout="0.1"),
        lambda: lsmha_keras.StochasticDepth("0.1"),
        lambda: lsmha_keras.TransformerBlock((2, 2), 2, 8, head_dropout="0.1"),
    ):
        with pytest.raises(ValueError, match=r"must be in \[0, 1\). Received: .*='0.1'"):
            make()


def test_checks_need_no_keras():
    import subprocess

    code = "import sys, lsmha_keras.arguments; sys.exit('keras' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
