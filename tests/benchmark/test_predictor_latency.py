"""Each way is timed and gives the same answer, and a cold start is a new process."""

import csv
import subprocess

import numpy as np
import pytest

from lsmha_keras import cli, presets
from lsmha_keras.benchmark import predictor_latency
from lsmha_keras.benchmark.plot_latency import plot_latency
from lsmha_keras.predictor import find_onnx
from tests.checks import PATIENCE


def test_all_ways_are_timed_and_agree(monkeypatch):
    pytest.importorskip("onnxruntime", reason="the ratio compares with it")
    answers, real = {}, predictor_latency.time_in_turn

    def keep(steps, runs, limit):
        answers.update({way.name: np.asarray(step()) for way, step in steps.items()})
        return real(steps, runs, limit)

    monkeypatch.setattr(predictor_latency, "time_in_turn", keep)
    rows = predictor_latency.measure("lsmha-small", "one image", runs=2, limit=PATIENCE)
    ways = [row["way"] for row in rows]
    assert ways[:2] == ["predict", "predict_on_batch"] and ways[-1] == "Predictor, keras"
    for row in rows:
        assert tuple(row) == predictor_latency.FIGURES
        assert 0 < row["fastest_ms"] <= row["median_ms"] <= row["slowest_ms"]
        assert answers[row["way"]].shape == (1, 100)
        np.testing.assert_allclose(answers[row["way"]], answers["predict"], atol=1e-3, rtol=0)
    (ours,) = [row for row in rows if row["way"] == "Predictor, onnxruntime"]
    assert ours["ratio_to_ours"] == 1
    assert ours["megabytes"] == round(find_onnx("lsmha-small")[0].stat().st_size / 1e6, 3)
    assert {row["preset"] for row in rows} == {presets.ALIASES["lsmha-small"]}
    assert all(row["p99_ms"] == row["accuracy"] == row["note"] == "" for row in rows)


def test_a_preset_without_a_file_has_keras_alone(tmp_path):
    from tests.exporting.models import small_classifier

    small_classifier().save_to_preset(str(tmp_path))
    rows = predictor_latency.measure(str(tmp_path), "64 images", runs=1, limit=PATIENCE)
    assert [row["way"] for row in rows] == ["predict", "predict_on_batch", "Predictor, keras"]
    assert all(row["ratio_to_ours"] == "" for row in rows)


def test_a_cold_start_is_a_process_that_answers(tmp_path, monkeypatch):
    pytest.importorskip("onnxruntime", reason="the first answer comes from it")
    printed, real = [], subprocess.run

    def run(*args, **kwargs):
        printed.append(real(*args, **kwargs).stdout.decode())

    monkeypatch.setattr(predictor_latency.subprocess, "run", run)
    output = tmp_path / "latency.csv"
    arguments = ["bench", "latency", "lsmha-small", "--what", "cold start", "--runs", "1"]
    arguments += ["--runtime", "onnxruntime"]
    assert cli.main([*arguments, "--output", str(output)]) == 0
    with output.open(newline="") as file:
        (row,) = csv.DictReader(file)
    assert (row["way"], row["what"], row["runs"]) == ("Predictor, onnxruntime", "cold start", "1")
    assert printed and all(len(text.splitlines()) == 6 for text in printed)


def test_int8_and_accuracies_are_measured_and_drawn(tmp_path):
    pytest.importorskip("onnx", reason='exporting needs `pip install "lsmha-keras[export]"`')
    pytest.importorskip("onnxruntime", reason="it calibrates")
    from tests.exporting.models import images_for, small_classifier

    model, images = small_classifier(), images_for(small_classifier(), 40)
    preset, table, figure = (str(tmp_path / name) for name in ("preset", "all.csv", "all.png"))
    model.save_to_preset(preset)
    assert cli.main(["zoo", "onnx", preset]) == 0
    labels = model.predict(images, verbose=0).argmax(axis=1)
    labels[:10] = (labels[:10] + 1) % 7  # which the model gets wrong
    parts = {"x_train": images, "y_train": np.arange(40) % 7, "x_test": images, "y_test": labels}
    np.savez(tmp_path / "data.npz", **parts)
    arguments = ["bench", "latency", preset, "--what", "one image", "--runs", "100"]
    arguments += ["--runtime", "onnxruntime", "--calibration", str(tmp_path / "data.npz")]
    assert cli.main([*arguments, "--output", table, "--plot", figure]) == 0
    with open(table, newline="") as file:
        rows = {row["way"]: row for row in csv.DictReader(file)}
    assert list(rows) == [
        "predict",
        "predict_on_batch",
        "Predictor, onnxruntime",
        "Predictor, onnxruntime, int8",
    ]
    for row in rows.values():
        assert row["accuracy"] == "75.0"
        assert float(row["median_ms"]) <= float(row["p99_ms"]) <= float(row["slowest_ms"])
        assert float(row["megabytes"]) > 0
    with open(figure, "rb") as file:
        assert file.read(4) == b"\x89PNG"


def test_architectures_take_turns_beside_their_peer(monkeypatch):
    pytest.importorskip("onnx", reason='exporting needs `pip install "lsmha-keras[export]"`')
    pytest.importorskip("onnxruntime", reason="the ratio compares with it")
    pytest.importorskip("einops", reason="vit-pytorch needs it")
    names = ["cct_2_3x2_h4", "cct_2_3x2_h4_c1"]
    options = {"runs": 1, "runtimes": ("onnxruntime",), "against": ("vit_pytorch.cct",)}
    rows = predictor_latency.measure(" ".join(names), "one image", **options)
    assert [row["preset"] for row in rows] == [name for name in names for _ in range(4)]
    peers = [row for row in rows if row["way"] == "vit_pytorch.cct"]
    assert peers[0]["median_ms"] > 0 and not peers[0]["note"]
    assert peers[1]["median_ms"] == "" and "neither conv blocks" in peers[1]["note"]


def test_a_figure_needs_accuracies(tmp_path, capsys):
    pytest.importorskip("matplotlib", reason='figures need pip install "lsmha-keras[plots]"')
    arguments = ["bench", "latency", "lsmha-small", "--plot", "speed.png"]
    assert cli.main([*arguments, "--output", str(tmp_path / "all.csv")]) == 2
    assert "--calibration" in capsys.readouterr().err
    (tmp_path / "all.csv").write_text(
        "what,way,accuracy,median_ms,machine\none image,torch,,3,here\n"
    )
    with pytest.raises(ValueError, match="must have rows of one image with an accuracy"):
        plot_latency(tmp_path / "all.csv", tmp_path / "all.png")
