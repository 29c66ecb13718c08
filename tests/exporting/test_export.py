import dataclasses
import json

import keras
import numpy as np
import pytest

import lsmha_keras as lsmha
from lsmha_keras import cli, presets
from lsmha_keras.runtimes.description import Description
from tests.exporting.models import STRUCTURES, images_for, small_classifier

pytest.importorskip("onnx", reason='exporting needs `pip install "lsmha-keras[export]"`')
pytest.importorskip("onnxruntime", reason="files are checked in onnxruntime")


def run_onnx(file, images):
    """Runs the file in onnxruntime, without this package."""
    import onnxruntime

    session = onnxruntime.InferenceSession(str(file), providers=["CPUExecutionProvider"])
    (found,) = session.run(None, {session.get_inputs()[0].name: images})
    return found


# Where the weights go does not depend on the backend.
@pytest.mark.backend_free
@pytest.mark.parametrize("structure", STRUCTURES)
def test_onnx_gives_what_predict_gives(structure, tmp_path):
    name, arguments = STRUCTURES[structure]
    model = small_classifier(name, **arguments)
    path = lsmha.export(model, "onnx", tmp_path / "exported")
    images = images_for(model)
    expected = model.predict(images, verbose=0)
    assert np.ptp(expected, axis=0).max() > 0.02  # the images matter
    for size in (1, 16):
        found = run_onnx(path / "model.onnx", images[:size])
        assert found.dtype == np.float32
        np.testing.assert_allclose(found, expected[:size], atol=1e-3, rtol=0)


@pytest.mark.slow
@pytest.mark.backend_free
@pytest.mark.parametrize("name", ["cct_7_3x1_h16", "cct_7_3x2_h16_c4"])
def test_large_architectures(name, tmp_path):
    model = lsmha.CCTImageClassifier.from_preset(name, num_classes=100)
    path = lsmha.export(model, "onnx", tmp_path / "exported")
    images = images_for(model, 2)
    expected = model.predict(images, verbose=0)
    np.testing.assert_allclose(run_onnx(path / "model.onnx", images), expected, atol=1e-3)


def test_what_lora_learned_is_in_the_file(tmp_path):
    model = small_classifier()
    before = model.predict(images_for(model), verbose=0)
    model = small_classifier()
    model.backbone.blocks[1].attention.qkv.enable_lora(2)
    for variable in model.backbone.trainable_variables:
        if "lora" in variable.name:
            variable.assign(np.full(variable.shape, 0.2))
    expected = model.predict(images_for(model), verbose=0)
    assert np.abs(expected - before).max() > 0.01
    path = lsmha.export(model, "onnx", tmp_path / "exported")
    found = run_onnx(path / "model.onnx", images_for(model))
    np.testing.assert_allclose(found, expected, atol=1e-3)


def test_softmax_gives_probabilities(tmp_path):
    model = small_classifier()
    path = lsmha.export(model, "onnx", tmp_path / "exported", softmax=True)
    expected = model.probabilities(model.predict(images_for(model), verbose=0))
    found = run_onnx(path / "model.onnx", images_for(model))
    np.testing.assert_allclose(found, expected, atol=1e-3, rtol=0)
    assert json.loads((path / "model.json").read_text())["activation"] == "softmax"
    softmax = small_classifier(activation="softmax")
    with pytest.raises(ValueError, match="returns probabilities already"):
        lsmha.export(softmax, "onnx", tmp_path / "twice", softmax=True)


@pytest.mark.parametrize("factor, weights", [(0.01, "float16"), (100, "float32")])
def test_weights_are_halved_where_the_logits_allow(factor, weights, tmp_path):
    """Rounding to float16 moves small logits by little and large ones by more than 1e-3."""
    model = small_classifier()
    model.output_dense.kernel.assign(model.output_dense.kernel * factor)
    path = lsmha.export(model, "onnx", tmp_path / "exported")
    assert json.loads((path / "model.json").read_text())["weights"] == weights
    expected = model.predict(images_for(model), verbose=0)
    found = run_onnx(path / "model.onnx", images_for(model))
    np.testing.assert_allclose(found, expected, atol=1e-3, rtol=0)
    # 2 or 4 bytes a parameter, and what the nodes take.
    size = (path / "model.onnx").stat().st_size
    half = 2 * model.count_params()
    assert (size < half + 40_000) if weights == "float16" else (size > 2 * half)


@pytest.mark.backend_free
def test_large_weights_that_float16_holds_are_halved_without_loss():
    """As those of presets that were packed; small ones are not worth another node."""
    from lsmha_keras.exporting.onnx_graph import OnnxGraph

    rng = np.random.default_rng(0)
    exact = rng.normal(size=(64, 64)).astype("float16").astype("float32")
    for value, kind in ((exact, "float16"), (exact * 1.001, "float32"), (exact[:8], "float32")):
        graph = OnnxGraph(half=False)
        graph.weight(value)
        (stored,) = graph.initializers
        stored = onnx_values(stored)
        assert stored.dtype == kind
        np.testing.assert_array_equal(stored.astype("float32"), value)


def onnx_values(stored):
    import onnx

    return onnx.numpy_helper.to_array(stored)


def test_the_file_says_what_it_takes(tmp_path):
    import onnx

    names = [f"class {k} é" for k in range(7)]
    model = small_classifier(class_names=names)
    path = lsmha.export(model, "onnx", tmp_path / "exported")
    beside = json.loads((path / "model.json").read_text(encoding="utf-8"))
    graph = onnx.load(path / "model.onnx")
    (entry,) = graph.metadata_props
    description = Description.from_json(entry.value, "test")
    assert description == Description.from_json(json.dumps(beside), "test")
    assert (description.class_names, description.image_shape) == (names, (16, 20, 3))
    # The geometry of photos, and the numbers that normalise them.
    assert "centred" in description.resize
    np.testing.assert_allclose(description.scale, [1 / 68.2125, 1 / 65.4075, 1 / 70.4055])
    presets.verify_checksums(path)


def test_a_file_with_other_answers_is_not_kept(tmp_path, monkeypatch):
    """Like Keras's own export, which leaves out the preprocessing."""
    from lsmha_keras.exporting import onnx_model

    def unnormalised(graph, converter, x):
        import onnx

        return graph.add("Cast", x, to=onnx.TensorProto.FLOAT)

    monkeypatch.setattr(onnx_model, "_normalised", unnormalised)
    with pytest.raises(ValueError, match="must equal those of `predict`.*a difference of"):
        lsmha.export(small_classifier(), "onnx", tmp_path / "exported")
    assert not list(tmp_path.iterdir())


def test_a_graph_that_answers_one_image_only_is_not_kept(tmp_path, monkeypatch):
    from lsmha_keras.exporting import onnx_format

    class OneImage(onnx_format.OnnxRuntime):
        def run(self, images):
            return super().run(images[:1])

    monkeypatch.setattr(onnx_format, "OnnxRuntime", OneImage)
    with pytest.raises(ValueError, match="a difference of inf"):
        lsmha.export(small_classifier(), "onnx", tmp_path / "exported")


def quantised():
    model = small_classifier()
    model.quantize("int8")
    return model


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (quantised, "Quantised models.*int8"),
        (lambda: small_classifier(dtype="mixed_bfloat16"), 'dtype="float32".*bfloat16'),
        (lambda: small_classifier(preprocessor=None), "the model has none"),
        (lambda: small_classifier(activation="relu"), "activation='relu'"),
        (lambda: lsmha.SoftCommittee([small_classifier()]), "Received: SoftCommittee"),
        (lambda: keras.Sequential([keras.layers.Input((2,))]), "Received: Sequential"),
        (lambda: "nonesuch", "list_presets.* gives: lsmha-base"),
        (lambda: "cct_2_3x2", "num_classes"),
    ],
)
def test_what_cannot_be_exported_is_named(make, message, tmp_path):
    with pytest.raises(ValueError, match=message):
        lsmha.export(make(), "onnx", tmp_path / "exported")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("format", ["onnx", "openvino", "litert", "tf_saved_model", "torch"])
def test_another_kind_of_attention_is_named(format, tmp_path):
    if format == "openvino":  # packages are asked for first
        pytest.importorskip("openvino", reason='needs `pip install "lsmha-keras[export]"`')
    model = small_classifier(attention="moh")
    kind = type(model.backbone.blocks[1].attention).__name__
    message = f"run in Keras only. Received: block_1, a TransformerBlock with {kind}"
    with pytest.raises(ValueError, match=message):
        lsmha.export(model, format, tmp_path / "exported")
    assert not list(tmp_path.iterdir())


def test_an_unknown_block_is_named(tmp_path):
    class Other(type(small_classifier().backbone.blocks[1])):
        pass

    model = small_classifier()
    model.backbone.blocks[1].__class__ = Other
    with pytest.raises(ValueError, match="Received: block_1, a Other"):
        lsmha.export(model, "onnx", tmp_path / "exported")


def test_only_an_export_is_replaced(tmp_path):
    model, target = small_classifier(), tmp_path / "exported"
    with pytest.raises(ValueError, match=r"`format` must be one of.*format='onx'"):
        lsmha.export(model, "onx", target)
    target.mkdir()
    (target / "notes.txt").write_text("mine")
    for overwrite in (False, True):
        with pytest.raises(ValueError, match="not an export"):
            lsmha.export(model, "onnx", target, overwrite=overwrite)
    (target / "notes.txt").unlink()
    lsmha.export(model, "onnx", target)
    before = (target / "model.onnx").read_bytes()
    other = small_classifier(seed=1)
    with pytest.raises(ValueError, match="--overwrite"):
        lsmha.export(other, "onnx", target)
    assert (target / "model.onnx").read_bytes() == before
    lsmha.export(other, "onnx", target, overwrite=True)
    assert (target / "model.onnx").read_bytes() != before


def test_the_command_knows_the_formats():
    from lsmha_keras.commands import export as command
    from lsmha_keras.exporting.export import FORMATS, PRECISIONS

    assert command._FORMATS == FORMATS
    assert command._PRECISIONS == PRECISIONS


def test_the_command_writes_an_export(tmp_path, capsys):
    model = small_classifier(class_names=list("abcdefg"))
    model.save_to_preset(str(tmp_path / "preset"))
    out = tmp_path / "out"
    arguments = ["export", str(tmp_path / "preset"), "--format", "onnx", "--output", str(out)]
    assert cli.main(arguments) == 0
    written = {line.split(" (")[0] for line in capsys.readouterr().out.splitlines()}
    assert written == {str(out / n) for n in ("checksums.sha256", "model.json", "model.onnx")}
    assert cli.main(arguments) == 2
    assert "--overwrite" in capsys.readouterr().err
    assert cli.main([*arguments, "--overwrite", "--softmax"]) == 0
    found = run_onnx(out / "model.onnx", images_for(model))
    np.testing.assert_allclose(found.sum(axis=1), 1, atol=1e-5)


def test_a_missing_package_is_named(monkeypatch, tmp_path):
    import sys

    monkeypatch.setitem(sys.modules, "onnx", None)
    with pytest.raises(ImportError, match=r'onnx is needed.*pip install "lsmha-keras\[export\]"'):
        lsmha.export(small_classifier(), "onnx", tmp_path / "exported")


def test_openvino_gives_what_predict_gives(tmp_path):
    pytest.importorskip("openvino", reason="the format is checked in OpenVINO")
    import openvino

    model = small_classifier(class_names=list("abcdefg"))
    path = lsmha.export(model, "openvino", tmp_path / "exported")
    assert {file.suffix for file in path.iterdir()} == {".xml", ".bin", ".json", ".sha256"}
    settings = {"INFERENCE_PRECISION_HINT": "f32"}
    compiled = openvino.Core().compile_model(str(path / "model.xml"), "CPU", settings)
    images = images_for(model)
    expected = model.predict(images, verbose=0)
    for size in (1, 5):
        np.testing.assert_allclose(compiled(images[:size])[0], expected[:size], atol=1e-3, rtol=0)


def run_in(runtime, path):
    """Loaders other than the writers' own, if there are any: file -> outputs."""
    if runtime == "torch":
        import torch

        module = torch.export.load(path / "model.pt2").module()
        return lambda images: module(torch.from_numpy(images)).detach().numpy()
    import tensorflow as tf

    if runtime == "tf_saved_model":
        loaded = tf.saved_model.load(str(path / "saved_model"))
        return lambda images: loaded.signatures["serving_default"](images=images)["output_0"]
    interpreter = tf.lite.Interpreter(str(path / "model.tflite"))

    def run(images):
        interpreter.resize_tensor_input(interpreter.get_input_details()[0]["index"], images.shape)
        return interpreter.get_signature_runner()(images=images)["output_0"]

    return run


# Written in a process of its own, whatever the backend.
@pytest.mark.slow
@pytest.mark.backend_free
@pytest.mark.filterwarnings("ignore:.*tf.lite.Interpreter is deprecated:UserWarning")
@pytest.mark.parametrize(
    ("format", "softmax"), [("tf_saved_model", True), ("litert", False), ("torch", False)]
)
def test_formats_of_backends_give_what_predict_gives(format, softmax, tmp_path):
    pytest.importorskip("torch" if format == "torch" else "tensorflow", reason="writes the format")
    # With the core's loop on TensorFlow: 4 MiB of scores.
    model = small_classifier(
        "cct_4_3x2_ib_h16_c1",
        image_shape=(64, 64, 3),
        hidden_dim=16,
        conv_block_design="reparameterized",
        class_names=list("abcdefg"),
    )
    path = lsmha.export(model, format, tmp_path / "exported", softmax=softmax)
    images = images_for(model)
    expected = model.predict(images, verbose=0)
    if softmax:
        expected = model.probabilities(expected)
    run = run_in(format, path)
    for size in (1, 4):
        found = np.asarray(run(images[:size]))
        np.testing.assert_allclose(found, expected[:size], atol=1e-3, rtol=0)
    assert json.loads((path / "model.json").read_text())["class_names"] == list("abcdefg")
    presets.verify_checksums(path)


@pytest.mark.backend_free
def test_an_error_of_the_child_is_reported_in_one_line(tmp_path, monkeypatch):
    pytest.importorskip("tensorflow", reason="writes the format")
    from lsmha_keras.models.raw_image_classifier import RawImageClassifier

    predict = RawImageClassifier.predict
    monkeypatch.setattr(RawImageClassifier, "predict", lambda *a, **k: predict(*a, **k) + 1)
    with pytest.raises(ValueError, match="must equal those of `predict`.* a difference of 1"):
        lsmha.export(small_classifier(), "tf_saved_model", tmp_path / "exported")
    assert not list(tmp_path.iterdir())


def test_a_description_of_something_else_is_refused():
    text = Description("a", (1, 1, 3), 2).to_json()
    assert dataclasses.asdict(Description.from_json(text, "x"))["num_classes"] == 2
    for broken in (None, "", "[]", "{}", text.replace('"version": 1', '"version": 2'), "nan"):
        with pytest.raises(ValueError, match="does not say.*Received: model.onnx"):
            Description.from_json(broken, "model.onnx")
