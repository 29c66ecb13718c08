"""The CNNs beside the presets have their published sizes, and run by the presets' code."""

import csv

import numpy as np
import pytest

pytest.importorskip("torch", reason="the CNNs need pip install torch")
pytest.importorskip("onnx", reason='writing files needs pip install "lsmha-keras[export]"')
pytest.importorskip("onnxruntime", reason='needs pip install "lsmha-keras[onnx]"')

from benchmarks import cnns
from lsmha_keras.predictor import Predictor
from lsmha_keras.presets import zoo_dir
from lsmha_keras.text_files import read_rows

pytestmark = pytest.mark.backend_free


@pytest.mark.parametrize("name", cnns.CNNS)
def test_sizes_are_the_published_ones(name):
    (published,) = [
        row
        for row in read_rows(zoo_dir() / "results" / "front.csv", ["model", "parameters"])
        if row["model"] == name
    ]
    found = cnns.count_cost(cnns.make_cnn(name))
    # Published for training, where each 3x3 convolution has one of 1x1 beside it.
    share = 9 / 10 if name == "repvgg_a2" else 1
    for count, key in zip(found, ("parameters", "multiply_adds"), strict=True):
        assert count == pytest.approx(share * int(published[key]), rel=0.02), key


def test_the_file_computes_what_the_module_does(tmp_path):
    import torch

    torch.manual_seed(0)
    path = tmp_path / "cnn.onnx"
    cnns.write_onnx("shufflenetv2_x1_0", path)
    image = np.random.default_rng(0).integers(0, 256, (32, 32, 3), dtype="uint8")
    torch.manual_seed(0)
    model = cnns.make_cnn("shufflenetv2_x1_0")
    with torch.no_grad():
        values = torch.from_numpy(image)[None].float() / 127.5 - 1
        expected = model(values.permute(0, 3, 1, 2)).numpy()
    logits = Predictor(path, runtime="onnxruntime").logits(image)
    np.testing.assert_allclose(logits, expected, atol=1e-4 * np.abs(expected).max())


def test_rows_are_written_once(tmp_path, capsys):
    path = tmp_path / "latency.csv"
    arguments = ["--output", str(path), "--models", "lsmha-small", "resnet20", "--runs", "2"]
    arguments += ["--runtimes", "onnxruntime"]
    cnns.main(arguments)
    with path.open(newline="") as file:
        ours, theirs = csv.DictReader(file)
    assert ours["model"].startswith("cct_") and theirs["model"] == "resnet20"
    expected = float(theirs["median_ms"]) / float(ours["median_ms"])
    assert float(theirs["ratio_to_ours"]) == pytest.approx(expected, abs=0.006)
    assert theirs["parameters"] and not ours["parameters"]
    before = path.read_bytes()
    cnns.main(arguments)
    assert path.read_bytes() == before and "already" in capsys.readouterr().out
