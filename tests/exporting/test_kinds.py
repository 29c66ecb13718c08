"""Kinds of attention in exported files: what `predict` gives, or a refusal by name."""

import numpy as np
import pytest

import lsmha_keras as lsmha
from lsmha_keras.attention.registry import attention_names, find_attention
from lsmha_keras.exporting.onnx_attention import KINDS
from tests.exporting.models import images_for, small_classifier
from tests.exporting.test_export import run_in, run_onnx

pytest.importorskip("onnx", reason='exporting needs `pip install "lsmha-keras[export]"`')
pytest.importorskip("onnxruntime", reason="files are checked in onnxruntime")

OPTIONS = {
    "grouped": {"num_kv_heads": 2},
    "clustered": {"map_of_head": [0, 1, 0, 2]},
    "mae": {"leave_out": 2, "gate_dim": 8},
    "windows": {"windows": [0, 1, None, 2]},
    "hilo": {"window": 1},
    "eit": {"maps_per_head": 3},
}


def classifier(kind, **arguments):
    options = arguments.pop("options", OPTIONS.get(kind))
    return small_classifier(attention=kind, attention_options=options, **arguments)


# Where the weights go does not depend on the backend.
@pytest.mark.backend_free
@pytest.mark.parametrize("kind", attention_names())
def test_every_kind_is_exported_or_refused_by_name(kind, tmp_path):
    model = classifier(kind, use_qkv_bias=True)
    layer = find_attention(kind).load_layer()
    if layer not in KINDS:
        with pytest.raises(ValueError, match=f"run in Keras only.*with {layer.__name__}"):
            lsmha.export(model, "onnx", tmp_path / "exported")
        return
    path = lsmha.export(model, "onnx", tmp_path / "exported")
    images = images_for(model)
    expected = model.predict(images, verbose=0)
    assert np.ptp(expected, axis=0).max() > 0.02
    found = run_onnx(path / "model.onnx", images)
    np.testing.assert_allclose(found, expected, atol=1e-3, rtol=0)


@pytest.mark.backend_free
def test_added_embeddings_of_heads(tmp_path):
    model = classifier("head_embedding", options={"combine": "add"})
    path = lsmha.export(model, "onnx", tmp_path / "exported")
    images = images_for(model)
    found = run_onnx(path / "model.onnx", images)
    np.testing.assert_allclose(found, model.predict(images, verbose=0), atol=1e-3, rtol=0)


def test_which_kinds_run_in_keras_only():
    refused = [name for name in attention_names() if find_attention(name).load_layer() not in KINDS]
    assert refused == ["moh", "moa", "hilo", "sparse"]


@pytest.mark.slow
@pytest.mark.backend_free
@pytest.mark.parametrize("format", ["tf_saved_model", "litert", "torch"])
@pytest.mark.filterwarnings("ignore:.*tf.lite.Interpreter is deprecated:UserWarning")
def test_other_formats_hold_them(format, tmp_path):
    pytest.importorskip("torch" if format == "torch" else "tensorflow", reason="writes the format")
    kinds = ["grouped", "talking", "eit", "normlin"]
    model = small_classifier(
        "cct_4_3x2_h4", attention=kinds, attention_options=[{"num_kv_heads": 2}, None, None, None]
    )
    path = lsmha.export(model, format, tmp_path / "exported")
    images = images_for(model)
    found = np.asarray(run_in(format, path)(images[:2]))
    np.testing.assert_allclose(found, model.predict(images, verbose=0)[:2], atol=1e-3, rtol=0)


@pytest.mark.parametrize(
    ("options", "message"),
    [({"token_keep": 0.5}, "token_keep=0.5"), ({"head_tokens": 4}, "head_tokens=4")],
)
def test_other_numbers_of_tokens_are_named(options, message, tmp_path):
    model = small_classifier("cct_2_3x2_h4", **options)
    with pytest.raises(ValueError, match=f"Keras only. Received: block_0 with {message}"):
        lsmha.export(model, "onnx", tmp_path / "exported")
