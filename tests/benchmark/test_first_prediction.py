"""The processes that are timed predict, and a failing one says why."""

import pytest

from lsmha_keras.benchmark import first_prediction


@pytest.mark.slow
def test_both_ways_are_timed():
    rows = first_prediction.measure("cct_2_3x2_h16_cifar100", runs=1)
    assert [row["way"] for row in rows] == list(first_prediction._WAYS)
    for row in rows:
        assert tuple(row) == first_prediction.FIGURES
        assert 0 < row["fastest_ms"] <= row["median_ms"] <= row["slowest_ms"]


def test_a_failing_process_says_why(tmp_path):
    with pytest.raises(RuntimeError, match="ZeroDivisionError"):
        first_prediction._time_process("1 / 0", str(tmp_path))
