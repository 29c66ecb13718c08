"""`lsmha bench train`: its figures, with a loop of known speed."""

import time

import keras
import pytest

from lsmha_keras.benchmark import training


@pytest.mark.skipif(keras.backend.backend() != "jax", reason="the device loop is jax's")
def test_figures_follow_from_the_time_of_a_step(monkeypatch):
    from lsmha_keras.training.device_loop import DeviceLoop

    now = [0.0]

    def run(loop, step, count, position, pace):
        now[0] += 10.0 if not now[0] else 0.25 * count
        return 0.0, 0.0, None

    monkeypatch.setattr(DeviceLoop, "run", run)
    monkeypatch.setattr(DeviceLoop, "program", lambda loop: 'custom_call @"__cudnn$fmhaSoftmax"')
    monkeypatch.setattr(time, "perf_counter", lambda: now[0])
    (row,) = training.measure("cct_7_3x1", batch=8, precision="float32", seconds=5)
    assert tuple(row) == training.FIGURES
    assert row["images_per_s"] == 32.0 and row["ms_per_step"] == 250.0
    # Counted by hand, layer by layer: 1.182 G multiply-adds an image; six operations for each.
    assert row["model_tflop_per_s"] == pytest.approx(6 * 1.182e9 * 32 / 1e12, abs=2e-3)
    assert row["compile_s"] == 10.0 and row["steps"] * 0.25 >= 5
    assert row["attention"] == "cudnn" and row["note"] == "on a cpu"


@pytest.mark.skipif(keras.backend.backend() == "jax", reason="jax has the device loop")
def test_another_backend_is_refused():
    with pytest.raises(ValueError, match="takes the jax backend"):
        training.measure("cct_2_3x2", batch=8, precision="float32")
