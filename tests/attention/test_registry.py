"""Kinds of attention by name: in backbones, presets and studies, and of one's own."""

import numpy as np
import pytest

import lsmha_keras
from lsmha_keras.attention.registry import (
    attention_names,
    list_attention,
    make_attention,
    register_attention,
)
from lsmha_keras.benchmark.multiply_adds import count_multiply_adds
from lsmha_keras.layers.large_scale_multi_head_attention import LargeScaleMultiHeadAttention
from lsmha_keras.models import (
    CCTBackbone,
    CCTImageClassifier,
    CCTImageClassifierPreprocessor,
    CCTImageConverter,
)
from lsmha_keras.presets import parse_architecture
from lsmha_keras.surgery.convert_attention import convert_attention
from lsmha_keras.surgery.replace_blocks import replace_blocks
from tests.checks import random_images, random_tokens, to_numpy

SMALL = {
    "image_shape": (16, 16, 3),
    "hidden_dim": 16,
    "num_layers": 2,
    "num_heads": 4,
    "mlp_dim": 16,
    "tokenizer_layers": 2,
    "tokenizer_filters": 4,
}


def make_classifier(**changes):
    backbone = CCTBackbone(**{**SMALL, **changes})
    converter = CCTImageConverter.for_images(backbone.image_shape)
    return CCTImageClassifier(backbone, 3, CCTImageClassifierPreprocessor(converter))


@pytest.fixture
def uniform():
    class UniformHeads(LargeScaleMultiHeadAttention):
        def attend(self, x, padding_mask, training, return_attention_scores):
            return super().attend(0 * x, padding_mask, training, return_attention_scores)

    register_attention("uniform", UniformHeads, "every token counts alike")
    return UniformHeads


@pytest.mark.parametrize("name", attention_names())
def test_a_model_of_each_kind_learns_and_survives_saving(name, tmp_path):
    model = make_classifier(attention=name)
    images, labels = random_images(12, 16, 16, 3), np.arange(12) % 3
    before = [to_numpy(w).copy() for w in model.backbone.trainable_weights]
    model.fit(images, labels, batch_size=6, epochs=2, verbose=0)
    changed = [
        not np.array_equal(old, to_numpy(w))
        for old, w in zip(before, model.backbone.trainable_weights, strict=True)
    ]
    assert all(changed)
    expected = model.predict(images, verbose=0)
    model.save_to_preset(tmp_path / "preset")
    loaded = CCTImageClassifier.from_preset(tmp_path / "preset")
    assert loaded.backbone.attention == name
    np.testing.assert_allclose(loaded.predict(images, verbose=0), expected, atol=1e-5)
    assert count_multiply_adds(loaded) > 0
    heads = loaded.backbone.intermediates(["block_1/head_outputs"])(random_tokens(1, 16, 16, 3))
    assert tuple(heads["block_1/head_outputs"].shape) == (1, 16, 4, 4)


def test_lora_and_fused_conv_blocks():
    for name in ("grouped", "clustered", "subspace"):
        model = make_classifier(attention=name, num_conv_blocks=1)
        model.backbone.enable_lora(2)
        adapted = [x for x in model.backbone._flatten_layers() if getattr(x, "lora_enabled", False)]
        assert adapted, name
        images = random_images(2, 16, 16, 3)
        np.testing.assert_allclose(
            model.fuse().predict(images, verbose=0), model.predict(images, verbose=0), atol=1e-4
        )


def test_a_kind_for_each_block():
    backbone = CCTBackbone(
        **SMALL | {"num_layers": 3},
        attention=["windows", "grouped", "multi_head"],
        attention_options=[{"windows": [0, 1, 2, None]}, {"num_kv_heads": 2}, None],
    )
    kinds = [type(block.attention).__name__ for block in backbone.blocks]
    assert kinds == ["WindowedHeads", "GroupedQueryAttention", "LargeScaleMultiHeadAttention"]
    clone = CCTBackbone.from_config(backbone.get_config())
    assert clone.blocks[1].attention.num_kv_heads == 2
    hybrid = replace_blocks(backbone, 1)
    assert hybrid.attention == ["grouped", "multi_head"]
    images = random_tokens(1, 16, 16, 3)
    assert np.isfinite(to_numpy(hybrid(images))).all()


def test_names_of_presets():
    assert parse_architecture("cct_2_3x2_h16_moh")["attention"] == "moh"
    assert parse_architecture("cct_7_3x1_h16_multi_query_c3")["num_conv_blocks"] == 3
    assert parse_architecture("cct_2_3x2_knocking")["attention"] == "knocking"
    assert "attention" not in parse_architecture("cct_2_3x2_sine")
    assert parse_architecture("cct_2_3x2_h16_mho") is None
    model = CCTImageClassifier.from_preset("cct_2_3x2_h16_hilo", num_classes=2)
    assert type(model.backbone.blocks[0].attention).__name__ == "HiLoAttention"


def test_a_kind_of_ones_own(uniform, tmp_path):
    assert [str(kind) for kind in list_attention()][-1].endswith("every token counts alike")
    model = make_classifier(attention="uniform")
    images = random_images(2, 16, 16, 3)
    model.save_to_preset(tmp_path / "preset")
    loaded = CCTImageClassifier.from_preset(tmp_path / "preset")
    assert type(loaded.backbone.blocks[0].attention) is uniform
    np.testing.assert_allclose(
        loaded.predict(images, verbose=0), model.predict(images, verbose=0), atol=1e-5
    )
    assert parse_architecture("cct_2_3x2_uniform")["attention"] == "uniform"


def test_convert_a_trained_model():
    model = make_classifier()
    images = random_images(4, 16, 16, 3)
    expected = model.predict(images, verbose=0)
    for name, options in [
        ("moh", {"num_shared": 1, "top_k": 3}),
        ("knocking", None),
        ("grouped", {"num_kv_heads": 4}),
    ]:
        converted = convert_attention(model, name, options)
        assert converted.backbone.attention == name
        np.testing.assert_allclose(converted.predict(images, verbose=0), expected, atol=1e-4)
        back = convert_attention(converted, "multi_head")
        np.testing.assert_allclose(back.predict(images, verbose=0), expected, atol=1e-4)
    with pytest.raises(ValueError, match="approximate=True"):
        convert_attention(model, "multi_query")
    approximate = convert_attention(model, "multi_query", approximate=True)
    assert approximate.count_params() < model.count_params()
    with pytest.raises(ValueError, match="did you mean|moh"):
        convert_attention(model, "mho")
    model.quantize("int8")
    with pytest.raises(ValueError, match="quantised"):
        convert_attention(model, "moh")


def test_bad_names_and_options(uniform):
    with pytest.raises(ValueError, match="attention='mho'"):
        CCTBackbone(**SMALL, attention="mho")
    with pytest.raises(ValueError, match="num_kv_heads.*'num_kv_head'"):
        CCTBackbone(**SMALL, attention="grouped", attention_options={"num_kv_head": 2})
    with pytest.raises(ValueError, match="has no options"):
        CCTBackbone(**SMALL, attention_options={"top_k": 2})
    with pytest.raises(ValueError, match="one entry per transformer block"):
        CCTBackbone(**SMALL, attention=["moh"])
    with pytest.raises(ValueError, match="needs the grid"):
        make_attention("hilo", 4)
    with pytest.raises(ValueError, match="name='moh'"):
        register_attention("moh", uniform)
    with pytest.raises(ValueError, match="name='MoH2'"):
        register_attention("MoH2", uniform)
    with pytest.raises(TypeError, match="subclass of"):
        register_attention("dense", object)


def test_public_names():
    for kind in list_attention():
        layer = kind.load_layer()
        if layer.__module__.startswith("lsmha_keras"):
            assert getattr(lsmha_keras, layer.__name__) is layer
