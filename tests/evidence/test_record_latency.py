"""The latency of a preset, written on its card."""

import dataclasses
import json

import keras
import pytest

from lsmha_keras import cli
from lsmha_keras.evidence import verify_preset as module
from lsmha_keras.evidence.verify_preset import PresetVerification, record_latency, verify_preset
from lsmha_keras.presets import list_presets, verify_checksums

pytestmark = pytest.mark.backend_free


def test_what_was_measured_stands_on_the_card(preset, monkeypatch):
    monkeypatch.setattr(module, "_latency_ms", lambda model: 1.25678)
    before = json.loads((preset / "results.json").read_text())
    assert "| latency of one image | not measured |" in (preset / "README.md").read_text()
    assert cli.main(["zoo", "verify", str(preset), "--skip-accuracy", "--record-latency"]) == 0
    results = json.loads((preset / "results.json").read_text())
    backend, hardware = results.pop("latency_backend"), results.pop("latency_hardware")
    assert backend == keras.config.backend() and hardware == results["hardware"]
    assert results.pop("latency_ms") == 1.257
    assert results == before
    card = (preset / "README.md").read_text()
    assert f"| latency of one image | 1.26 ms (median; {backend} on {hardware}) |" in card
    verify_checksums(preset)
    found = verify_preset(preset, accuracy=False)
    assert (found.ok, found.notes, found.card_latency_ms) == (True, (), 1.257)


def test_the_ways_of_a_user_stand_beside_it(preset, monkeypatch):
    monkeypatch.setattr(module, "_latency_ms", lambda model: 1.5)
    rows = [
        {"way": "predict", "median_ms": 3.25},
        {"way": "Predictor, openvino", "median_ms": 0.414},
        {"way": "Predictor, onnxruntime", "median_ms": ""},  # not measured
    ]
    monkeypatch.setattr(module.predictor_latency, "measure", lambda *arguments: rows)
    (preset / "model.onnx").write_bytes(b"")
    record_latency(PresetVerification(str(preset), latency_ms=1.5))
    results = json.loads((preset / "results.json").read_text())
    assert results["latencies_ms"] == {"predict": 3.25, "Predictor, openvino": 0.414}
    card = (preset / "README.md").read_text()
    assert "); predict: 3.25 ms; Predictor, openvino: 0.41 ms |" in card


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"failures": ("config.json was changed",)}, "config.json was changed"),
        ({"latency_ms": None}, "could not be measured"),
    ],
)
def test_nothing_is_recorded_of_what_does_not_hold(changes, message, preset, monkeypatch):
    monkeypatch.setattr(module, "_latency_ms", lambda model: 1.5)
    found = dataclasses.replace(verify_preset(preset, accuracy=False), **changes)
    before = (preset / "results.json").read_bytes()
    with pytest.raises(ValueError, match=message):
        record_latency(found)
    assert (preset / "results.json").read_bytes() == before


def test_a_refused_preset_is_left_as_it_is(preset, capsys):
    (preset / "history.csv").write_text("changed")
    assert cli.main(["zoo", "verify", str(preset), "--record-latency"]) == 1
    assert (preset / "history.csv").read_text() == "changed"
    assert "history.csv was changed" in capsys.readouterr().err


@pytest.mark.parametrize("info", list_presets("cct_*", False), ids=lambda info: info.name)
def test_shipped_presets_of_images_say_their_latency(info):
    assert info.latency_ms > 0
