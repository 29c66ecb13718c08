"""Each way to an answer is timed, gives the same answer, and a cold start is a fresh process."""

import csv
import subprocess

import numpy as np
import pytest

from lsmha_keras import cli
from lsmha_keras.benchmark import predictor_latency


def test_all_ways_are_timed_and_agree(monkeypatch):
    pytest.importorskip("onnxruntime", reason="the ratio compares with it")
    answers, real = {}, predictor_latency.time_in_turn

    def keep(steps, runs, limit):
        answers.update({way: np.asarray(step()) for way, step in steps.items()})
        return real(steps, runs, limit)

    monkeypatch.setattr(predictor_latency, "time_in_turn", keep)
    rows = predictor_latency.measure("lsmha-small", "one image", runs=2)
    ways = [row["way"] for row in rows]
    assert ways[:2] == ["predict", "predict_on_batch"] and ways[-1] == "Predictor, keras"
    for row in rows:
        assert tuple(row) == predictor_latency.FIGURES
        assert 0 < row["fastest_ms"] <= row["median_ms"] <= row["slowest_ms"]
        assert answers[row["way"]].shape == (1, 100)
        np.testing.assert_allclose(answers[row["way"]], answers["predict"], atol=1e-3, rtol=0)
    (ours,) = [row for row in rows if row["way"] == "Predictor, onnxruntime"]
    assert ours["ratio_to_ours"] == 1


def test_a_preset_without_a_file_has_keras_alone(tmp_path):
    from tests.exporting.models import small_classifier

    small_classifier().save_to_preset(str(tmp_path))
    rows = predictor_latency.measure(tmp_path, "64 images", runs=1)
    assert [row["way"] for row in rows] == ["predict", "predict_on_batch", "Predictor, keras"]
    assert all(row["ratio_to_ours"] == "" for row in rows)


def test_a_cold_start_is_a_process_that_answers(tmp_path, monkeypatch):
    pytest.importorskip("onnxruntime", reason="the first answer comes from it")
    printed, real = [], subprocess.run

    def run(*args, **kwargs):
        printed.append(real(*args, **kwargs).stdout.decode())

    monkeypatch.setattr(predictor_latency.subprocess, "run", run)
    monkeypatch.setattr(predictor_latency, "RUNTIMES", ("onnxruntime",))
    output = tmp_path / "latency.csv"
    arguments = ["bench", "latency", "lsmha-small", "--what", "cold start", "--runs", "1"]
    assert cli.main([*arguments, "--output", str(output)]) == 0
    with output.open(newline="") as file:
        (row,) = csv.DictReader(file)
    assert (row["way"], row["what"], row["runs"]) == ("Predictor, onnxruntime", "cold start", "1")
    assert printed and all(len(text.splitlines()) == 6 for text in printed)
