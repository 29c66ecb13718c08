"""Files in int8 are smaller and keep the accuracy; otherwise they are refused."""

import json

import numpy as np
import pytest

import lsmha_keras as lsmha
from lsmha_keras import cli
from tests.exporting.models import images_for, small_classifier
from tests.exporting.test_export import run_onnx

onnx = pytest.importorskip("onnx", reason='exporting needs `pip install "lsmha-keras[export]"`')
pytest.importorskip("onnxruntime", reason="it calibrates")
pytestmark = pytest.mark.backend_free


@pytest.fixture(scope="module")
def model():
    # Larger than the other tests' models, so that weights and not nodes fill the file.
    model = small_classifier(hidden_dim=64, mlp_dim=128, class_names=list("abcdefg"))
    # Which class wins shall depend on the image.
    outputs = model.predict(images_for(model), verbose=0)
    bias = model.output_dense.bias
    bias.assign(bias - outputs.mean(axis=0))
    return model


@pytest.fixture(scope="module")
def data(model, tmp_path_factory):
    """Datasets of images that the model is sure of, labelled by its answers.

    One shows black images for training, which tell nothing of the ranges of activations.
    """
    images = images_for(model, 800)
    outputs = model.predict(images, batch_size=800, verbose=0)
    ranked = np.sort(outputs, axis=1)
    sure = np.argsort(ranked[:, -2] - ranked[:, -1])[:200]
    folder, train = tmp_path_factory.mktemp("data"), images_for(model, 64, seed=5)
    for name, shown in (("sure", train), ("black", np.zeros_like(train))):
        np.savez(
            folder / f"{name}.npz",
            x_train=shown,
            y_train=np.arange(64) % 7,
            x_test=images[sure],
            y_test=outputs[sure].argmax(axis=1),
        )
    return folder


def test_the_command_writes_int8_and_prints_the_accuracy(model, data, tmp_path, capsys):
    model.save_to_preset(str(tmp_path / "preset"))
    arguments = ["export", str(tmp_path / "preset"), "--format", "onnx", "--any-size"]
    arguments += ["--precision", "int8", "--calibration", "sure.npz", "--data-dir", str(data)]
    assert cli.main([*arguments, "--output", str(tmp_path / "int8")]) == 0
    line = "accuracy on 200 images: 100.00 % in float32, 100.00 % in int8"
    assert line in capsys.readouterr().out
    description = json.loads((tmp_path / "int8" / "model.json").read_text())
    assert description["weights"] == "int8"
    assert description["calibration"] == {
        "dataset": "sure.npz",
        "images": 64,
        "checked": 200,
        "float32": 100,
        "int8": 100,
    }
    file = tmp_path / "int8" / "model.onnx"
    graph = onnx.load(file).graph
    kinds = {n.op_type: sum(m.op_type == n.op_type for m in graph.node) for n in graph.node}
    # Convolutions and dense layers have weights of 8 bits; the products of attention (two), pooling
    # and the resize (two) have none.
    stored = [c for c in graph.initializer if c.data_type == onnx.TensorProto.INT8 and c.dims]
    assert len([c for c in stored if len(c.dims) > 1]) == kinds["Conv"] + kinds["MatMul"] - 5
    plain = lsmha.export(model, "onnx", tmp_path / "float")
    assert file.stat().st_size < 0.75 * (plain / "model.onnx").stat().st_size

    classify = lsmha.Predictor(tmp_path / "int8", runtime="onnxruntime")
    images = images_for(model)
    found, exact = classify.logits(images), model.predict(images, verbose=0)
    np.testing.assert_allclose(found, run_onnx(file, images), atol=1e-4)
    assert 1e-4 < np.abs(found - exact).max() < 0.2 * np.ptp(exact)
    assert classify(images[0], top=1)[0][0] in list("abcdefg")


def test_an_accuracy_that_falls_is_refused_with_the_numbers(model, data, tmp_path):
    with pytest.raises(ValueError, match=r"0\.5 points.*100\.00 % in float32, [0-9.]+ % in int8"):
        lsmha.export(
            model,
            "onnx",
            tmp_path / "int8",
            precision="int8",
            calibration=data / "black.npz",
        )
    assert not list(tmp_path.iterdir())


def test_openvino_runs_int8(model, data, tmp_path):
    pytest.importorskip("openvino", reason="the format is checked in OpenVINO")
    options = {"precision": "int8", "calibration": data / "sure.npz"}
    path = lsmha.export(model, "openvino", tmp_path / "openvino", **options)
    assert json.loads((path / "model.json").read_text())["calibration"]["int8"] >= 99.5
    file = lsmha.export(model, "onnx", tmp_path / "onnx", **options) / "model.onnx"
    images = images_for(model)
    found, other = (lsmha.Predictor(file, runtime=r) for r in ("openvino", "onnxruntime"))
    scale = np.ptp(model.predict(images, verbose=0))
    assert np.abs(found.logits(images) - other.logits(images)).max() < 0.2 * scale


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"precision": "int8"}, "go together.*calibration=None"),
        ({"calibration": "sure.npz"}, "go together.*precision='float32'"),
        ({"precision": "int4"}, "precision='int4'"),
        ({"precision": "int8", "calibration": "nonesuch.npz"}, "nonesuch"),
        ({"precision": "int8", "calibration": "digits"}, "7 classes.*digits with 10 classes"),
        (
            {"format": "litert", "precision": "int8", "calibration": "sure.npz"},
            "support int8. Received: format='litert'",
        ),
    ],
)
def test_mistakes_are_named(options, message, model, data, tmp_path):
    options = {"format": "onnx", "data_dir": data, **options}
    with pytest.raises(ValueError, match=message):
        lsmha.export(model, path=tmp_path / "int8", **options)
    assert not list(tmp_path.iterdir())
