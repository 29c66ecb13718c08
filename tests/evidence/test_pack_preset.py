"""Presets packed into one small file, unpacked and measured."""

import io
import json
import shutil
import tarfile

import h5py
import keras
import numpy as np
import pytest

from lsmha_keras.evidence import pack_preset as module
from lsmha_keras.evidence.pack_preset import pack_preset, pack_state
from lsmha_keras.evidence.verify_preset import verify_preset
from lsmha_keras.models import CCTImageClassifier
from lsmha_keras.training.train import train
from tests.training.tiny import read_history, recipe_dict, write_dataset


def test_what_is_unpacked_is_what_was_measured(model_and_run, tmp_path):
    model, run = model_and_run
    path, results = pack_preset(run, tmp_path)
    assert [file.name for file in tmp_path.iterdir()] == ["tiny.tar"]
    with tarfile.open(path) as archive:
        archive.extractall(tmp_path / "there", filter="data")
    unpacked = tmp_path / "there" / "tiny"
    # Files, golden logits to 1e-4 and accuracy, all of the rounded weights.
    found = verify_preset(unpacked)
    assert found.ok and found.accuracy == results["accuracy"]
    kept = json.loads((run / "preset" / "results.json").read_text())
    assert {key: results[key] for key in ("hardware", "date", "versions", "epochs")} == {
        key: kept[key] for key in ("hardware", "date", "versions", "epochs")
    }
    loaded = CCTImageClassifier.from_preset(str(unpacked))
    for rounded, whole in zip(loaded.get_weights(), model.get_weights(), strict=True):
        if whole.dtype == np.float32:
            np.testing.assert_array_equal(rounded, whole.astype("float16").astype("float32"))
    stored = []
    with h5py.File(unpacked / "model.weights.h5") as file:
        file.visititems(lambda name, item: stored.append(getattr(item, "dtype", None)))
    assert np.dtype("float16") in stored and np.dtype("float32") not in stored


def test_what_cannot_be_packed_is_refused(model_and_run, tmp_path, monkeypatch):
    with pytest.raises(ValueError, match="A finished training run .* Received: .*empty"):
        pack_preset(tmp_path / "empty", tmp_path)
    monkeypatch.setattr(module, "_LIMIT", 10_000)
    with pytest.raises(ValueError, match="larger than 0 MB. Received: .* with 0"):
        pack_preset(model_and_run[1], tmp_path)
    assert not list(tmp_path.iterdir())


def test_a_weight_that_float16_cannot_hold_is_named(model_and_run, tmp_path):
    run = shutil.copytree(model_and_run[1], tmp_path / "run")
    model = CCTImageClassifier.from_preset(str(run / "preset"))
    weight = model.output_dense.kernel
    weight.assign(np.full(weight.shape, 1e5, "float32"))
    with pytest.raises(ValueError, match="above 65504 .* Received: predictions/kernel"):
        module.round_weights(model)


def test_a_run_goes_on_elsewhere(tmp_path, monkeypatch):
    recipe = recipe_dict(write_dataset(tmp_path / "tiny.npz"), schedule={"epochs": 2})
    stop = keras.callbacks.LambdaCallback(on_epoch_begin=interrupt_second)
    with pytest.raises(KeyboardInterrupt):
        train(recipe, tmp_path / "here" / "run", callbacks=[stop], verbose=0)
    monkeypatch.setattr(module, "_LIMIT", 30_000)
    carry = tmp_path / "carry"
    carry.mkdir()
    (carry / "run.run.tar.77").write_text("of a larger state, packed before")
    paths = pack_state(tmp_path / "here" / "run", carry)
    assert len(paths) > 2 and sorted(carry.iterdir()) == paths
    assert max(path.stat().st_size for path in paths) == 30_000
    joined = io.BytesIO(b"".join(path.read_bytes() for path in paths))
    with tarfile.open(fileobj=joined) as archive:
        archive.extractall(tmp_path / "there", filter="data")
    first = read_history(tmp_path / "here" / "run")
    result = train(recipe, tmp_path / "there" / "run", verbose=0)
    assert len(result.history) == 2
    assert result.history[0]["loss"] == pytest.approx(first[0]["loss"])


def interrupt_second(epoch, logs=None):
    if epoch == 1:
        raise KeyboardInterrupt


def test_a_state_that_cannot_be_packed_is_named(model_and_run, tmp_path, monkeypatch):
    with pytest.raises(ValueError, match="unfinished training run .* no checkpoints/last.npz"):
        pack_state(model_and_run[1], tmp_path / "carry")
    (tmp_path / "run" / "checkpoints").mkdir(parents=True)
    (tmp_path / "run" / "checkpoints" / "last.npz").write_bytes(bytes(30_000))
    monkeypatch.setattr(module, "_LIMIT", 100)
    with pytest.raises(ValueError, match="100 parts .* Received: .*run with 0 MB"):
        pack_state(tmp_path / "run", tmp_path / "carry")
    assert not list((tmp_path / "carry").iterdir())
