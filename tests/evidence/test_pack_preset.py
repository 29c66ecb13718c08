"""Presets packed into one small file, unpacked and measured."""

import json
import shutil
import tarfile

import h5py
import numpy as np
import pytest

from lsmha_keras.evidence import pack_preset as module
from lsmha_keras.evidence.pack_preset import pack_preset
from lsmha_keras.evidence.verify_preset import verify_preset
from lsmha_keras.models import CCTImageClassifier


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
        module._round_weights(model)
