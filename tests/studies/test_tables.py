"""The table of executions and what is made of it, on rows worked by hand."""

import json
import subprocess
import sys

import numpy as np
import pytest

from lsmha_keras.studies.execution_table import collect_executions, read_table, write_table
from lsmha_keras.studies.hparams_log import write_hparams
from lsmha_keras.studies.signal_correlation import signal_correlation
from lsmha_keras.studies.study_report import setting_table, study_report
from lsmha_keras.studies.trial_points import pareto_front, trial_points


def row(trial, latency, accuracy, heads=2, execution=0, status="completed", **others):
    return {
        "study": "tiny",
        "trial": trial,
        "execution": execution,
        "status": status,
        "latency_ms": latency,
        "val_accuracy": accuracy,
        "hp.num_heads": heads,
        **others,
    }


ROWS = [
    row("0", 2.0, 0.50),
    row("0", 2.0, 0.54, execution=1),
    row("1", 1.0, 0.40, heads=4),
    row("2", 3.0, 0.51, heads=4),  # slower and worse than trial 0
    row("3", 4.0, 0.60, heads=8),
    row("4", 9.0, None, heads=8, status="infeasible"),
    row("5", 1.0, float("nan"), heads=8),
]


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


def test_table_of_a_setting():
    lines = setting_table(trial_points(ROWS), "num_heads").splitlines()
    assert lines[2:] == [
        "| 2 | 1 | 52.00 | 52.00 | 2.00 |",
        "| 4 | 2 | 45.50 ± 7.78 | 51.00 | 2.00 |",  # 40 and 51: 11 / sqrt(2) apart from the mean
        "| 8 | 1 | 60.00 | 60.00 | 4.00 |",
    ]
    assert "7 executions: 6 completed, 1 infeasible, 0 failed" in study_report(ROWS)


def test_correlation_of_ranks():
    pytest.importorskip("scipy")
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
    assert np.isnan(signal_correlation([r | {"shp_snr": 1} for r in rows], "shp_snr").rho)


def test_plot(tmp_path):
    pytest.importorskip("matplotlib")
    from lsmha_keras.studies.plot_front import plot_front

    figure = plot_front(ROWS)
    axes = figure.axes[0]
    steps = axes.lines[0].get_xydata()
    np.testing.assert_allclose(steps, [[1, 40], [2, 52], [4, 60]])
    texts = {text.get_text() for text in axes.get_legend().get_texts()}
    assert {"2 heads", "4 heads", "8 heads"} <= texts
    figure.savefig(tmp_path / "front.png")
    assert (tmp_path / "front.png").stat().st_size > 5000


def test_hparams(tmp_path):
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_file_loader import EventFileLoader
    from tensorboard.plugins.hparams.plugin_data_pb2 import HParamsPluginData

    assert write_hparams(tmp_path, {"num_heads": 4, "design": "full"}, {"val_accuracy": 0.25})
    (path,) = tmp_path.iterdir()
    values = [v for event in EventFileLoader(str(path)).Load() for v in event.summary.value]
    start = next(v for v in values if v.tag.endswith("session_start_info"))
    data = HParamsPluginData.FromString(start.metadata.plugin_data.content)
    assert data.session_start_info.hparams["num_heads"].number_value == 4
    assert data.session_start_info.hparams["design"].string_value == "full"
    assert any(v.tag == "val_accuracy" for v in values)


def test_hparams_without_tensorflow(tmp_path):
    pytest.importorskip("tensorboard")
    code = (
        "import sys; sys.modules['tensorflow'] = None\n"
        "from lsmha_keras.studies.hparams_log import write_hparams\n"
        "assert write_hparams(sys.argv[1], {'num_heads': 4}, {'val_accuracy': 0.25})"
    )
    subprocess.run([sys.executable, "-c", code, tmp_path], check=True)
    assert len(list(tmp_path.iterdir())) == 1
