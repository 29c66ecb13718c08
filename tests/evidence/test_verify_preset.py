"""A preset measured again: what holds, what is refused, and what is not measured."""

import json
import sys

import h5py
import numpy as np
import pytest

from lsmha_keras.evidence import verify_preset as module
from lsmha_keras.evidence.verify_preset import verify_preset
from lsmha_keras.exporting.onnx_format import write_preset_onnx
from lsmha_keras.presets import write_checksums


@pytest.fixture
def no_loading(model_and_run, monkeypatch):
    """The model as it was saved, without the time to load it and to measure its latency."""
    monkeypatch.setattr(module, "_load", lambda directory: model_and_run[0])
    monkeypatch.setattr(module, "_latency_ms", lambda model: 1.5)


def change_card(preset, **changes):
    path = preset / "results.json"
    card = json.loads(path.read_text())
    path.write_text(json.dumps({**card, **changes}))
    write_checksums(preset)
    return card


def change_golden(preset, **changes):
    with np.load(preset / "golden.npz") as arrays:
        golden = dict(arrays)
    np.savez(preset / "golden.npz", **{**golden, **changes})
    return golden


def test_an_untouched_preset_holds(preset, model_and_run, monkeypatch):
    monkeypatch.setattr(module, "_LATENCY_RUNS", 2)
    found = verify_preset(preset)
    assert (found.ok, found.failures, found.notes) == (True, (), ())
    assert found.golden_difference < 1e-5
    with np.load(model_and_run[1].parent / "tiny.npz") as data:
        logits = model_and_run[0].predict(data["x_test"], verbose=0)
        expected = (np.asarray(logits).argmax(axis=1) == data["y_test"]).mean()
    assert found.accuracy == pytest.approx(expected) == found.card_accuracy
    assert found.latency_ms > 0 and found.card_latency_ms is None


def test_changed_weights_are_refused_by_their_logits(preset):
    def shift(name, item):
        if isinstance(item, h5py.Dataset) and item.ndim == 2:
            item[...] = item[...] * 1.5

    with h5py.File(preset / "task.weights.h5", "r+") as file:
        file.visititems(shift)
    assert "task.weights.h5 was changed" in verify_preset(preset).failures[0]
    write_checksums(preset)
    found = verify_preset(preset)
    assert not found.ok and found.golden_difference > 1e-4
    assert f"differ by up to {found.golden_difference:.3g}, more" in found.failures[0]


def test_the_onnx_file_is_compared_with_the_golden_logits(preset, no_loading, monkeypatch):
    pytest.importorskip("onnx", reason='exporting needs `pip install "lsmha-keras[export]"`')
    onnxruntime = pytest.importorskip("onnxruntime", reason="runs the file")
    write_preset_onnx(preset)
    found = verify_preset(preset)
    assert (found.ok, found.failures, found.notes) == (True, (), ())
    run = onnxruntime.InferenceSession.run

    def shifted(*args):
        return [outputs + 0.002 for outputs in run(*args)]

    monkeypatch.setattr(onnxruntime.InferenceSession, "run", shifted)
    (failure,) = verify_preset(preset).failures
    assert failure.startswith("logits of model.onnx differ by up to 0.002")
    assert "more than 0.001; `lsmha zoo onnx`" in failure
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    found = verify_preset(preset)
    assert found.ok and "model.onnx not compared: The package onnxruntime" in found.notes[0]
    (preset / "model.onnx").write_bytes(b"no graph")
    assert "model.onnx was changed" in verify_preset(preset).failures[0]


@pytest.mark.parametrize("shift", [0.25, 2e-4])
def test_changed_golden_logits_are_refused(shift, preset, no_loading):
    logits = change_golden(preset)["logits"].copy()
    logits[3, logits[3].argmax()] += shift  # the label stays
    change_golden(preset, logits=logits)
    assert "golden.npz was changed" in verify_preset(preset).failures[0]
    write_checksums(preset)
    found = verify_preset(preset)
    assert found.golden_difference == pytest.approx(shift, abs=1e-5)
    assert "more than 0.0001" in found.failures[0]
    assert found.accuracy is None and found.latency_ms is None  # refused before


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"labels": np.full(8, 9)}, "labels in golden.npz are not those of its logits"),
        ({"logits": np.full((8, 4), np.nan), "labels": np.zeros(8, int)}, "differ by up to nan"),
        ({"logits": np.eye(8), "labels": np.arange(8)}, "have shape (8, 8). Received: (8, 4)"),
    ],
)
def test_golden_tensors_must_fit_each_other(changes, message, preset, no_loading):
    change_golden(preset, **changes)
    write_checksums(preset)
    assert message in verify_preset(preset).failures[0]


def test_golden_tensors_must_be_complete(preset):
    np.savez(preset / "golden.npz", images=np.zeros(8), labels=np.zeros(8))
    write_checksums(preset)
    assert "logits" in verify_preset(preset).failures[0]


@pytest.mark.parametrize(
    ("points", "ok"), [(0.1, True), (-0.1, True), (0.11, False), (-0.11, False)]
)
def test_accuracy_agrees_to_a_tenth_of_a_point(points, ok, preset, no_loading):
    accuracy = json.loads((preset / "results.json").read_text())["accuracy"]
    change_card(preset, accuracy=accuracy + points / 100)
    found = verify_preset(preset)
    assert (found.ok, found.accuracy) == (ok, pytest.approx(accuracy))
    assert ok or f"accuracy is {accuracy:.2%}, on the card" in found.failures[0]


@pytest.mark.parametrize(
    ("changes", "note"),
    [
        ({"dataset": "missing.npz"}, "accuracy not measured: missing.npz is not in --data-dir"),
        ({"dataset": "cifar100"}, "accuracy not measured: cifar100 is not in"),
        ({"num_images": 41}, "accuracy not compared: the card's test split"),
        (
            {
                "latency_ms": 2.0,
                "latency_hardware": "another machine",
                "latency_backend": "jax",
            },
            "latency on the card: jax on another machine; here:",
        ),
    ],
)
def test_what_cannot_be_compared_is_said(changes, note, preset, no_loading, monkeypatch):
    monkeypatch.delenv("LSMHA_DATA_DIR", raising=False)
    change_card(preset, **changes)
    found = verify_preset(preset)
    assert found.ok and found.notes[0].startswith(note)
    assert (found.accuracy is None) == ("accuracy" in note)
    assert (found.latency_ms, found.card_latency_ms) == (1.5, changes.get("latency_ms"))


def test_data_that_cannot_be_read_is_a_failure(preset, no_loading, tmp_path):
    (tmp_path / "broken.npz").write_bytes(b"no archive")
    change_card(preset, dataset="broken.npz")
    found = verify_preset(preset, data_dir=tmp_path)
    assert found.failures[0].startswith("accuracy could not be measured on broken.npz: ")


def test_accuracy_can_be_left_out(preset, no_loading):
    found = verify_preset(preset, accuracy=False)
    assert found.ok and found.accuracy is None and found.notes == ()


@pytest.mark.parametrize("name", ["golden.npz", "results.json", "checksums.sha256"])
def test_missing_files_are_named(name, preset):
    (preset / name).unlink()
    assert verify_preset(preset).failures[0].startswith(f"{name} is missing")


def test_a_card_without_figures_is_refused(preset, no_loading):
    (preset / "results.json").write_text('{"dataset": "digits"}')
    write_checksums(preset)
    assert "must have split, num_images, accuracy" in verify_preset(preset).failures[0]


def test_architectures_have_nothing_to_verify():
    with pytest.raises(ValueError, match="no weights to verify.*Received: preset='cct_2_3x2'"):
        verify_preset("cct_2_3x2")
