"""`lsmha bench train`: its figures, with a loop of known speed."""

import time

import keras
import pytest

from lsmha_keras.benchmark import training
from lsmha_keras.training.device_loop import device_loop_class


@pytest.mark.skipif(keras.backend.backend() == "tensorflow", reason="has no device loop")
def test_figures_follow_from_the_time_of_a_step(monkeypatch):
    loop_class, now = device_loop_class(), [0.0]

    def run(loop, step, count, position, pace):
        now[0] += 10.0 if not now[0] else 0.25 * count
        return 0.0, 0.0, None

    monkeypatch.setattr(loop_class, "run", run)
    monkeypatch.setattr(
        loop_class, "program", lambda loop: 'custom_call @"__cudnn$fmhaSoftmax"', raising=False
    )
    monkeypatch.setattr(time, "perf_counter", lambda: now[0])
    (row,) = training.measure("cct_7_3x1", batch=8, precision="float32", seconds=5)
    assert tuple(row) == training.FIGURES
    assert row["images_per_s"] == 32.0 and row["ms_per_step"] == 250.0
    # Counted by hand, layer by layer: 1.182 G multiply-adds an image; six operations for each.
    assert row["model_tflop_per_s"] == pytest.approx(6 * 1.182e9 * 32 / 1e12, abs=2e-3)
    assert row["compile_s"] == 10.0 and row["steps"] * 0.25 >= 5
    expected = {"jax": "cudnn", "torch": "not traced"}[keras.backend.backend()]
    assert row["attention"] == expected and row["note"] == "not on a GPU"


@pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="has the device loop")
def test_another_backend_is_refused():
    with pytest.raises(ValueError, match="takes the jax or the torch backend"):
        training.measure("cct_2_3x2", batch=8, precision="float32")
