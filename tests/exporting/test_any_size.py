"""Graphs that take photos of any size resize them bit for bit as `predict` does."""

import importlib.util
import json

import numpy as np
import pytest

import lsmha_keras as lsmha
from lsmha_keras import cli
from lsmha_keras.exporting.onnx_graph import IR_VERSION, OPSET, OnnxGraph, resized
from lsmha_keras.images import resize_batch
from tests.exporting.models import small_classifier
from tests.exporting.test_export import run_onnx
from tests.models.test_one_photo import photo

onnx = pytest.importorskip("onnx", reason='exporting needs `pip install "lsmha-keras[export]"`')
onnxruntime = pytest.importorskip("onnxruntime", reason="files are checked in onnxruntime")

SIZES = [(16, 20), (240, 320), (320, 240), (101, 40), (9, 30), (1, 1), (200, 3)]


@pytest.mark.backend_free
@pytest.mark.parametrize("size", [(32, 32), (24, 40), (17, 5)])
def test_the_resize_is_pillows(size):
    graph = OnnxGraph(half=False)
    output = resized(graph, "images", size)
    ends = [
        onnx.helper.make_tensor_value_info(name, kind, ["batch", 3, *sides])
        for name, kind, sides in (
            ("images", onnx.TensorProto.UINT8, ["height", "width"]),
            (output, onnx.TensorProto.FLOAT, size),
        )
    ]
    model = onnx.helper.make_model(
        onnx.helper.make_graph(graph.nodes, "resize", ends[:1], ends[1:], graph.initializers),
        opset_imports=[onnx.helper.make_opsetid("", OPSET)],
        ir_version=IR_VERSION,
    )
    session = onnxruntime.InferenceSession(model.SerializeToString())
    rng = np.random.default_rng(0)
    for shape in [size, *rng.integers(1, 150, (40, 2))]:
        images = rng.integers(0, 256, (2, *shape, 3), dtype="uint8")
        (found,) = session.run(None, {"images": images.transpose(0, 3, 1, 2)})
        expected = resize_batch(images, size).transpose(0, 3, 1, 2)
        np.testing.assert_array_equal(found, expected, err_msg=f"{shape} to {size}")


@pytest.mark.backend_free
@pytest.mark.parametrize("channels", [3, 1])
def test_photos_of_any_size_get_the_answers_of_predict(channels, tmp_path, capsys):
    model = small_classifier(image_shape=(16, 20, channels))
    model.save_to_preset(str(tmp_path / "preset"))
    out = tmp_path / "exported"
    arguments = ["export", str(tmp_path / "preset"), "--format", "onnx", "--output", str(out)]
    assert cli.main([*arguments, "--any-size"]) == 0
    description = json.loads((out / "model.json").read_text())
    assert description["any_size"] and description["resize"].startswith("inside: ")
    runtimes = [r for r in ("onnxruntime", "openvino") if importlib.util.find_spec(r)]
    predictors = [lsmha.Predictor(out, runtime=runtime) for runtime in runtimes]
    for size in SIZES:
        images = np.stack([photo(*size), 255 - photo(*size)])[..., :channels]
        expected = model.predict(images, verbose=0)
        found = run_onnx(out / "model.onnx", images)
        np.testing.assert_allclose(found, expected, atol=1e-3, rtol=0, err_msg=str(size))
        # They resize by themselves, and the graph leaves images of the model's size as they are.
        for classify in predictors:
            np.testing.assert_allclose(classify.logits(images), expected, atol=1e-3, rtol=0)


@pytest.mark.backend_free
def test_a_graph_with_another_resize_is_not_kept(tmp_path, monkeypatch):
    from lsmha_keras.exporting import onnx_model

    def nearest(graph, x, size):
        shape = graph.constant(np.array([0, 0, *size], "int64"))
        ends = graph.add("Shape", x, start=0, end=2)
        shape = graph.add("Concat", ends, graph.constant(np.array(size, "int64")), axis=0)
        x = graph.add("Cast", x, to=onnx.TensorProto.FLOAT)
        return graph.add("Resize", x, "", "", shape, mode="nearest")

    monkeypatch.setattr(onnx_model, "resized", nearest)
    with pytest.raises(ValueError, match="must equal those of `predict`"):
        lsmha.export(small_classifier(), "onnx", tmp_path / "exported", any_size=True)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("format", ["openvino", "litert", "tf_saved_model", "torch"])
def test_formats_without_the_resize_are_named(format, tmp_path):
    with pytest.raises(ValueError, match=f"can resize photos.*Received: format='{format}'"):
        lsmha.export("lsmha-small", format, tmp_path / "exported", any_size=True)
