"""Runs ended by SIGKILL, and runs on several simulated devices, each in a new process."""

import json
import os
import pathlib
import signal
import subprocess
import sys
import textwrap
import time

import keras
import pytest

from tests.checks import PATIENCE
from tests.training.tiny import recipe_dict, write_dataset

ROOT = pathlib.Path(__file__).parents[2]

TRAIN = """
    import json, os, pathlib, sys, time
    import keras, numpy as np
    from lsmha_keras.training.train import train

    recipe, run, moment = sys.argv[1:4]
    marker = pathlib.Path(run + ".reached")
    epoch_now = None

    def wait_for_the_kill():
        marker.touch()
        time.sleep(300)

    class Watch(keras.callbacks.Callback):
        def on_epoch_begin(self, epoch, logs=None):
            global epoch_now
            epoch_now = epoch
        def on_train_batch_end(self, batch, logs=None):
            if moment == "epoch 1, step 3" and (epoch_now, batch) == (1, 3):
                wait_for_the_kill()

    whole = np.savez
    def half(file, **arrays):
        if moment == "saving epoch 2" and epoch_now == 2:
            file.write(b"PK" + bytes(10_000))
            file.flush()
            wait_for_the_kill()
        whole(file, **arrays)
    np.savez = half

    train(json.loads(recipe), run, callbacks=[Watch()], verbose=0)
"""

DEVICES = """
    import json, sys
    import keras, numpy as np
    if keras.backend.backend() == "tensorflow":
        import tensorflow as tf
        one = tf.config.LogicalDeviceConfiguration()
        cpu = tf.config.list_physical_devices("CPU")[0]
        tf.config.set_logical_device_configuration(cpu, [one, one])
    from lsmha_keras.training.train import train

    recipe, folder = json.loads(sys.argv[1]), sys.argv[2]
    figures = {}
    for devices in (1, 2):
        recipe["runtime"]["devices"] = devices
        result = train(recipe, f"{folder}/{devices}", verbose=0)
        golden = np.load(result.preset_dir / "golden.npz")["logits"]
        figures[devices] = [result.history, result.results, golden.tolist()]
    weight = result.model.trainable_variables[0].value
    held = weight.sharding.device_set if keras.backend.backend() == "jax" else weight.values
    figures["copies"] = len(held)
    recipe["runtime"]["devices"] = 2
    print("FIGURES" + json.dumps(figures))
"""


def start(script, *arguments, **environment):
    environment = {
        **os.environ,
        "PYTHONPATH": str(ROOT),
        "CUDA_VISIBLE_DEVICES": "-1",
        # The processes of a test compile the same programs.
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
        **environment,
    }
    command = [sys.executable, "-c", textwrap.dedent(script), *arguments]
    return subprocess.Popen(
        command, env=environment, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )


def finish(process):
    out, err = process.communicate(timeout=PATIENCE)
    assert process.returncode == 0, err[-3000:]
    return out


@pytest.mark.slow
@pytest.mark.backend_free  # tests/training/test_resume.py: each backend's state is whole
@pytest.mark.skipif(os.name != "posix", reason="SIGKILL is POSIX's")
def test_a_run_killed_twice_ends_like_an_uninterrupted_one(tmp_path):
    data = write_dataset(tmp_path / "tiny.npz")
    recipe = json.dumps(
        recipe_dict(
            data, data={"validation_split": "test[:20]"}, ema={"enabled": True, "momentum": 0.7}
        )
    )
    run, whole = tmp_path / "run", tmp_path / "whole"
    cache = {"JAX_COMPILATION_CACHE_DIR": str(tmp_path / "cache")}
    finish(start(TRAIN, recipe, str(whole), "never", **cache))
    for moment, epochs in (("epoch 1, step 3", 1), ("saving epoch 2", 2)):
        process = start(TRAIN, recipe, str(run), moment, **cache)
        marker = pathlib.Path(f"{run}.reached")
        while not marker.exists():
            assert process.poll() is None, process.communicate()[1][-3000:]
            time.sleep(0.05)
        process.send_signal(signal.SIGKILL)
        process.wait()
        marker.unlink()
        assert len((run / "history.csv").read_text().splitlines()) == 1 + epochs
    finish(start(TRAIN, recipe, str(run), "never", **cache))
    histories = [read(folder) for folder in (run, whole)]
    assert len(histories[0]) == 4
    for row, other in zip(*histories, strict=True):
        assert row.keys() == other.keys()
        assert row == pytest.approx(other, rel=1e-4, abs=1e-6)
    ours, theirs = (json.loads((d / "preset/results.json").read_text()) for d in (run, whole))
    assert ours["loss"] == pytest.approx(theirs["loss"], rel=1e-3)


def read(folder):
    header, *rows = (folder / "history.csv").read_text().splitlines()
    return [dict(zip(header.split(","), map(float, row.split(",")), strict=True)) for row in rows]


@pytest.mark.slow
@pytest.mark.skipif(keras.backend.backend() == "torch", reason="one device only on torch")
def test_two_devices_match_one(tmp_path):
    data = write_dataset(tmp_path / "tiny.npz")
    # Nothing random per device, and no batch statistics, which devices keep of their own share.
    overrides = {"num_conv_blocks": 0, "dropout_rate": 0.0, "attention_dropout": 0.0}
    recipe = recipe_dict(data, schedule={"epochs": 3}, data={"validation_split": "test[:21]"})
    recipe["model"]["overrides"] |= overrides | {"stochastic_depth_rate": 0.0}
    recipe["optimizer"]["learning_rate"] = 3e-3
    recipe["ema"] = {"enabled": True, "momentum": 0.7}
    flags = "--xla_force_host_platform_device_count=2"
    process = start(DEVICES, json.dumps(recipe), str(tmp_path), XLA_FLAGS=flags)
    figures = json.loads(finish(process).partition("FIGURES")[2])
    assert figures["copies"] == 2
    (one, one_results, one_golden), (two, two_results, two_golden) = figures["1"], figures["2"]
    for row, other in zip(one, two, strict=True):
        assert row == pytest.approx(other, rel=2e-3)
    assert two_results["loss"] == pytest.approx(one_results["loss"], rel=2e-3)
    assert two_results["num_images"] == 40
    for row, other in zip(one_golden, two_golden, strict=True):
        assert row == pytest.approx(other, abs=2e-3)
