"""Trials as points, and the front of those that none beats."""

import numpy as np
import pytest

from lsmha_keras.studies.trial_points import pareto_front, trial_points, write_front
from tests.studies.rows import ROWS, row

pytestmark = pytest.mark.backend_free


def test_points_and_front():
    points = trial_points(ROWS)
    assert [(p.trial, p.cost, round(p.value, 4), p.executions) for p in points] == [
        ("0", 2.0, 0.52, 2),
        ("1", 1.0, 0.40, 1),
        ("2", 3.0, 0.51, 1),
        ("3", 4.0, 0.60, 1),
    ]
    assert points[0].spread == pytest.approx(0.02 * 2**0.5)  # two values 0.04 apart
    assert points[1].spread is None
    assert points[3].hyperparameters == {"num_heads": 8}
    assert [point.trial for point in pareto_front(points)] == ["1", "0", "3"]


def test_front_as_csv(tmp_path):
    path = tmp_path / "deep" / "front.csv"
    points = pareto_front(trial_points([*ROWS, row("6", 0.5, 0.3) | {"hp.design": "full"}]))
    write_front(points, path)
    lines = [line.split(",") for line in path.read_text().splitlines()]
    assert lines[0] == "trial,cost,value,spread,executions,hp.design,hp.num_heads".split(",")
    assert lines[1] == ["6", "0.5", "0.3", "", "1", "full", "2"]
    assert [line[0] for line in lines[1:]] == ["6", "1", "0", "3"]
    assert float(lines[3][3]) == points[2].spread and lines[3][4] == "2"
    assert [found.name for found in path.parent.iterdir()] == ["front.csv"]


def test_equal_points_give_one_of_the_front():
    rows = [row("0", 1.0, 0.5), row("1", 1.0, 0.5), row("2", 1.0, 0.4), row("3", 2.0, 0.5)]
    assert [point.trial for point in pareto_front(trial_points(rows))] == ["0"]


def test_front_against_brute_force():
    rng = np.random.default_rng(0)
    pairs = rng.integers(0, 12, (60, 2))
    points = trial_points([row(f"{i:02}", float(c), float(v)) for i, (c, v) in enumerate(pairs)])
    beaten = [
        any(
            other.cost <= p.cost
            and other.value >= p.value
            and (other.cost, other.value) != (p.cost, p.value)
            for other in points
        )
        for p in points
    ]
    expected = {(p.cost, p.value) for p, lost in zip(points, beaten, strict=True) if not lost}
    front = pareto_front(points)
    assert {(p.cost, p.value) for p in front} == expected
    assert len(front) == len(expected)


def test_bad_columns_and_no_trials():
    with pytest.raises(ValueError, match="latency_ms.*Received: 'latency'"):
        trial_points(ROWS, cost="latency")
    with pytest.raises(ValueError, match="No completed trial"):
        trial_points([row("0", 1.0, None, status="failed")])


def test_trials_of_two_studies_are_told_apart():
    points = trial_points([row("0", 1.0, 0.5), row("0", 2.0, 0.7) | {"study": "other"}])
    assert sorted((p.value, p.executions, p.spread) for p in points) == [
        (0.5, 1, None),
        (0.7, 1, None),
    ]
