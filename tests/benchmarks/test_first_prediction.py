"""The two ways predict the same, each is timed in new processes, and a failing one says why."""

import sys

import numpy as np
import pytest

from benchmarks import first_prediction
from lsmha_keras.models import CCTImageClassifier
from lsmha_keras.presets import resolve_preset

PRESET = "cct_2_3x2_h16_cifar100"


def test_both_ways_predict_the_same(monkeypatch):
    logits, real = [], CCTImageClassifier.predict

    def predict(self, *args, **kwargs):
        logits.append(real(self, *args, **kwargs))
        return logits[-1]

    monkeypatch.setattr(CCTImageClassifier, "predict", predict)
    monkeypatch.setattr(sys, "argv", ["-c", str(resolve_preset(PRESET))])
    for code in first_prediction._WAYS.values():
        # Alone, as in a process of its own: it imports all that it uses.
        exec(code, {"__name__": "__main__"})
    ours, by_hand = logits
    assert ours.shape == (1, 100)
    np.testing.assert_allclose(by_hand, ours, atol=1e-5)


def test_both_ways_are_timed_in_new_processes(tmp_path, monkeypatch):
    files = [tmp_path / str(number) for number in range(len(first_prediction._WAYS))]
    for way, file in zip(first_prediction._WAYS, files, strict=True):
        code = f"import os, lsmha_keras; print(os.getpid(), file=open({str(file)!r}, 'a'))"
        monkeypatch.setitem(first_prediction._WAYS, way, code)
    rows = first_prediction.measure(PRESET, runs=2)
    assert [row["way"] for row in rows] == list(first_prediction._WAYS)
    for row in rows:
        assert tuple(row) == first_prediction.FIGURES
        assert row["runs"] == 2
    pids = [file.read_text().split() for file in files]
    assert [len(found) for found in pids] == [3, 3]  # the first time does not count
    assert len({pid for found in pids for pid in found}) == 6


def test_a_failing_process_says_why(tmp_path):
    with pytest.raises(RuntimeError, match="ZeroDivisionError"):
        first_prediction._time_process("1 / 0", str(tmp_path))
