"""Models of texts and series in exported files: what `predict` gives, whatever the padding."""

import json

import keras
import numpy as np
import pytest

import lsmha_keras as lsmha
from lsmha_keras.attention.registry import attention_names, find_attention
from lsmha_keras.exporting.onnx_attention import KINDS
from tests.checks import random_tokens

pytest.importorskip("onnx", reason='exporting needs `pip install "lsmha-keras[export]"`')
pytest.importorskip("onnxruntime", reason="files are checked in onnxruntime")

SMALL = {"hidden_dim": 12, "num_layers": 2, "num_heads": 4, "mlp_dim": 10}
TIME = 11
TEXTS = ["What is a cat ?", "Who is Ada Lovelace ?", "far", "a " * TIME]
# Kinds that mix all places of a sequence: for series without padding.
WITHOUT_MASKS = ("super", "normlin")


def noisy(model):
    """Moves all weights and statistics from their initial values, so that a graph must use them."""
    rng = np.random.default_rng(0)
    for variable in model.weights:
        value = keras.ops.convert_to_numpy(variable)
        noise = rng.normal(0, 0.2, value.shape)
        positive = variable.name == "moving_variance"
        variable.assign(value + np.abs(noise) if positive else value + noise)
    return model


def text_classifier(head=None, **options):
    arguments = {"embedding_dim": 10, "tokenizer_kernel_size": 4, **SMALL, **options}
    return noisy(lsmha.CCTTextClassifier.from_texts(TEXTS, 3, TIME, head=head, **arguments))


def series_classifier(mask_value=None, **options):
    backbone = lsmha.CCTSequenceBackbone(
        TIME, num_features=3, mask_value=mask_value, **{**SMALL, **options}
    )
    return noisy(lsmha.CCTSequenceClassifier(backbone, 3))


def run_onnx(path, inputs):
    """Runs the file in onnxruntime, without this package."""
    import onnxruntime

    session = onnxruntime.InferenceSession(
        str(path / "model.onnx"), providers=["CPUExecutionProvider"]
    )
    (found,) = session.run(None, {session.get_inputs()[0].name: inputs})
    return found


def check_texts(model, tmp_path):
    """The file gives the logits of `predict`, with the model's length and with shorter ones."""
    path = lsmha.export(model, "onnx", tmp_path / "exported")
    ids = np.asarray(model.preprocessor(TEXTS))
    expected = model.predict(TEXTS, verbose=0)
    assert np.ptp(expected, axis=0).max() > 0.02  # the texts matter
    np.testing.assert_allclose(run_onnx(path, ids), expected, atol=1e-4, rtol=0)
    # The first three texts have at most 5 words.
    np.testing.assert_allclose(run_onnx(path, ids[:3, :5]), expected[:3], atol=1e-4, rtol=0)
    np.testing.assert_allclose(run_onnx(path, ids[2:3, :1]), expected[2:3], atol=1e-4, rtol=0)
    return path


@pytest.mark.backend_free
@pytest.mark.parametrize("kind", attention_names())
def test_every_kind_is_exported_or_refused_by_name(kind, tmp_path):
    options = {"clustered": {"map_of_head": [0, 1, 0, 2]}, "windows": {"windows": [0, 1, None, 2]}}
    if kind in WITHOUT_MASKS:
        model = series_classifier(attention=kind)
        path = lsmha.export(model, "onnx", tmp_path / "exported")
        series = random_tokens(4, TIME, 3)
        expected = model.predict(series, verbose=0)
        np.testing.assert_allclose(run_onnx(path, series), expected, atol=1e-4, rtol=0)
        return
    layer = find_attention(kind).load_layer()
    if layer not in KINDS:
        if kind != "hilo":  # which no model of texts takes
            model = text_classifier(attention=kind)
            with pytest.raises(ValueError, match=f"run in Keras only.*with {layer.__name__}"):
                lsmha.export(model, "onnx", tmp_path / "exported")
        return
    check_texts(text_classifier(attention=kind, attention_options=options.get(kind)), tmp_path)


STRUCTURES = {
    "lama": {"head": {"pooling": "lama", "pooling_heads": 2}, "tokenizer_kernel_size": 2},
    "two stages": {"tokenizer_kernel_size": 3, "tokenizer_layers": 2, "use_qkv_bias": True},
    "no convolution": {"tokenizer_layers": 0, "embedding_dim": 12, "position_embedding": "sine"},
    "hybrid": {"num_conv_blocks": 1, "conv_block_design": "reparameterized"},
    "convolutions last": {"blocks": ["attention", "conv"], "conv_block_design": "full"},
    "positions of each layer": {"position_embedding_join": "layer", "context_broadcast": True},
    "probabilities": {"head": {"activation": "softmax"}, "position_embedding": "none"},
}


@pytest.mark.backend_free
@pytest.mark.parametrize("structure", STRUCTURES)
def test_every_structure_of_texts(structure, tmp_path):
    check_texts(text_classifier(**STRUCTURES[structure]), tmp_path)


@pytest.mark.backend_free
@pytest.mark.parametrize("options", [{"normalize": True}, {"context": "mean"}], ids=str)
def test_other_forms_of_lama(options, tmp_path):
    class Classifier(lsmha.CCTTextClassifier):
        def make_pooler(self, policy):
            return lsmha.LAMAPooling(2, dtype=policy, name="pooler", **options)

    arguments = {"embedding_dim": 10, **SMALL}
    model = Classifier.from_texts(TEXTS, 3, TIME, head={"pooling": "lama"}, **arguments)
    check_texts(noisy(model), tmp_path)


def test_series_with_padding_may_be_shorter(tmp_path):
    model = series_classifier(mask_value=-1.0)
    path = lsmha.export(model, "onnx", tmp_path / "exported", softmax=True)
    series = random_tokens(4, TIME, 3)
    series[:, 6:] = -1
    expected = model.probabilities(model.predict(series, verbose=0))
    np.testing.assert_allclose(run_onnx(path, series), expected, atol=1e-4, rtol=0)
    np.testing.assert_allclose(run_onnx(path, series[:, :6]), expected, atol=1e-4, rtol=0)


def test_openvino_holds_texts(tmp_path):
    pytest.importorskip("openvino", reason="writes the format")
    model = text_classifier(head={"pooling": "lama"})
    path = lsmha.export(model, "openvino", tmp_path / "exported")
    assert {file.name for file in path.iterdir()} >= {"model.xml", "model.bin", "model.json"}


def test_the_file_says_how_texts_become_ids(tmp_path):
    model = text_classifier()
    path = lsmha.export(model, "onnx", tmp_path / "exported")
    beside = json.loads((path / "model.json").read_text(encoding="utf-8"))
    assert beside["vocabulary"] == model.preprocessor.vocabulary
    assert beside["vocabulary_size"] == len(beside["vocabulary"]) + 2
    assert (beside["image_shape"], beside["any_length"]) == ([TIME], True)


@pytest.mark.parametrize(
    ("format", "options", "message"),
    [
        ("litert", {}, r"formats \('onnx', 'openvino'\).*CCTTextClassifier with format='litert'"),
        ("onnx", {"any_size": True}, "are for images.*any_size=True"),
    ],
)
def test_what_is_for_images_is_refused(format, options, message, tmp_path):
    pytest.importorskip("tensorflow", reason="litert asks for it first")
    with pytest.raises(ValueError, match=message):
        lsmha.export(text_classifier(), format, tmp_path / "exported", **options)
    assert not list(tmp_path.iterdir())


def test_a_recurrent_tokenizer_is_refused_by_name(tmp_path):
    with pytest.raises(ValueError, match="Keras only.*tokenizer_design='gru'"):
        lsmha.export(text_classifier(tokenizer_design="gru"), "onnx", tmp_path / "exported")
