"""The table of a study, its trials as points, the front, and what the signals tell."""

import json

import numpy as np
import pytest

from lsmha_keras.studies.execution_table import (
    collect_executions,
    pareto_front,
    read_table,
    signal_correlation,
    trial_points,
    write_front,
    write_table,
)
from tests.studies.rows import ROWS, row

pytestmark = pytest.mark.backend_free


def test_table_round_trip(tmp_path):
    rows = [row("00", 1.5, 0.25, error="two\nlines", seed=3), row("01", None, None, heads=4)]
    write_table(rows, tmp_path / "deep" / "table.csv")
    again = read_table(tmp_path / "deep" / "table.csv")
    assert again[0]["trial"] == "00" and again[0]["latency_ms"] == 1.5
    assert again[0]["error"] == "two lines" and again[0]["seed"] == 3
    assert again[1]["latency_ms"] is None and again[1]["hp.num_heads"] == 4
    (tmp_path / "other.csv").write_text("a,b\n1,2\n")
    with pytest.raises(ValueError, match="other.csv without study, trial"):
        read_table(tmp_path / "other.csv")


def test_torn_files_are_left_out(tmp_path):
    for trial, text in (("1", json.dumps(row("1", 1.0, 0.5))), ("0", '{"trial": "0", ')):
        path = tmp_path / f"trial_{trial}" / "execution_0" / "execution.json"
        path.parent.mkdir(parents=True)
        path.write_text(text)
    with pytest.warns(UserWarning, match="trial_0.execution_0.execution.json"):
        assert [found["trial"] for found in collect_executions(tmp_path)] == ["1"]


@pytest.mark.parametrize("bad", [{"trial": 1}, {"execution": "0"}, {"status": None}])
def test_rows_that_cannot_be_sorted_are_left_out(tmp_path, bad):
    for trial, found in (("0", row("0", 1.0, 0.5) | bad), ("1", row("1", 1.0, 0.5))):
        path = tmp_path / f"trial_{trial}" / "execution_0" / "execution.json"
        path.parent.mkdir(parents=True)
        path.write_text(json.dumps(found))
    with pytest.warns(UserWarning, match=f"trial_0.*{next(iter(bad))}="):
        assert [found["trial"] for found in collect_executions(tmp_path)] == ["1"]


def test_kinds_of_cells(tmp_path):
    settings = {"hp.design": "1_2", "hp.heads": [2, 4], "hp.bias": False, "hp.name": "cct_2_3x2"}
    write_table([row("0", 0.1 + 0.2, 0.5) | settings], tmp_path / "table.csv")
    (again,) = read_table(tmp_path / "table.csv")
    assert again["latency_ms"] == 0.1 + 0.2  # to the last bit
    assert {key: again[key] for key in settings} == settings | {"hp.heads": "[2, 4]"}
    assert again["hp.bias"] is False


@pytest.mark.parametrize("end", [",1", ""])
def test_torn_tables_are_named(tmp_path, end):
    path = tmp_path / "table.csv"
    write_table([row("0", 1.0, 0.5), row("1", 1.0, 0.5)], path)
    text = path.read_text().rstrip("\n")
    path.write_text(text + end if end else text[: text.rindex(",")])
    with pytest.raises(ValueError, match="Received: .*table.csv, line 3"):
        read_table(path)


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


def test_trials_of_two_studies_are_distinguished():
    points = trial_points([row("0", 1.0, 0.5), row("0", 2.0, 0.7) | {"study": "other"}])
    assert sorted((p.value, p.executions, p.spread) for p in points) == [
        (0.5, 1, None),
        (0.7, 1, None),
    ]


pytestmark = pytest.mark.backend_free


def test_correlation_of_ranks():
    # Spearman's formula without ties: 1 - 6 sum(d^2) / (n (n^2 - 1)), d = 0, 0, 1, 1, 0.
    rows = [
        row(str(i), 1.0, accuracy, shp_snr=signal)
        for i, (signal, accuracy) in enumerate([(1, 0.1), (2, 0.2), (3, 0.4), (40, 0.3), (50, 0.5)])
    ]
    found = signal_correlation(rows, "shp_snr")
    assert found.rho == pytest.approx(1 - 6 * 2 / (5 * 24))
    assert found.low < found.rho <= found.high <= 1 and found.trials == 5
    with pytest.raises(ValueError, match="at least 4 trials. Received: 3"):
        signal_correlation(rows[:3], "shp_snr")


@pytest.mark.filterwarnings("error")
def test_a_signal_that_never_changes_tells_nothing():
    rows = [row(str(i), 1.0, i / 10, shp_snr=1) for i in range(4)]
    found = signal_correlation(rows, "shp_snr")
    assert np.isnan([found.rho, found.low, found.high]).all() and found.trials == 4


def test_correlation_of_tied_ranks_is_that_of_scipy():
    stats = pytest.importorskip("scipy.stats")
    signal, accuracy = np.random.default_rng(0).integers(0, 6, (2, 30)).tolist()
    rows = [
        row(f"{i:02}", 1.0, y, shp_snr=x)
        for i, (x, y) in enumerate(zip(signal, accuracy, strict=True))
    ]
    expected = stats.spearmanr(signal, accuracy).statistic
    assert signal_correlation(rows, "shp_snr").rho == pytest.approx(expected)
