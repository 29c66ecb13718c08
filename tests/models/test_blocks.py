"""Backbones whose layers are given one by one."""

import numpy as np
import pytest

from lsmha_keras.benchmark.multiply_adds import count_multiply_adds
from lsmha_keras.layers.conv_block import ConvBlock
from lsmha_keras.layers.glmix_block import GLMixBlock
from lsmha_keras.layers.spectral_block import SpectralBlock
from lsmha_keras.layers.transformer_block import TransformerBlock
from lsmha_keras.models import CCTBackbone
from lsmha_keras.presets import read_config
from lsmha_keras.surgery.convert_attention import convert_attention
from lsmha_keras.surgery.grow import grow
from lsmha_keras.surgery.replace_blocks import replace_blocks
from tests.attention.test_registry import SMALL, make_classifier
from tests.checks import random_images, random_tokens, to_numpy

MIXED = {
    "num_layers": 4,
    "blocks": ["spectral", "glmix", "conv", "attention"],
    "num_heads": [2, 4],
    "attention_options": None,
}


@pytest.fixture(scope="module")
def trained():
    """A backbone of all kinds of blocks after a step in which every weight has learnt."""
    model = make_classifier(**MIXED)
    before = [to_numpy(w).copy() for w in model.backbone.trainable_weights]
    model.fit(random_images(6, 16, 16, 3), np.arange(6) % 3, epochs=1, verbose=0)
    unchanged = [
        w.path
        for old, w in zip(before, model.backbone.trainable_weights, strict=True)
        if np.array_equal(old, to_numpy(w))
    ]
    assert not unchanged
    return model.backbone


IMAGES = random_tokens(2, 16, 16, 3)


def test_one_kind_for_each_layer():
    backbone = CCTBackbone(**SMALL | MIXED)
    kinds = [SpectralBlock, GLMixBlock, ConvBlock, TransformerBlock]
    assert [type(block) for block in backbone.blocks] == kinds
    assert [backbone.blocks[i].num_heads for i in (1, 3)] == [2, 4]
    rates = [block.stochastic_depth_rate for block in backbone.blocks]
    np.testing.assert_allclose(rates, [0, 0.1 / 3, 0.2 / 3, 0.1])
    config = backbone.get_config()
    assert config["blocks"] == MIXED["blocks"]
    assert CCTBackbone.from_config(config).get_config() == config


def test_conv_blocks_in_front_are_a_shorthand():
    short = CCTBackbone(**SMALL, num_conv_blocks=1)
    listed = CCTBackbone(**SMALL, blocks=["conv", "attention"])
    assert short.block_kinds == listed.block_kinds == ["conv", "attention"]
    assert [w.path for w in short.weights] == [w.path for w in listed.weights]
    # Configs from before have no `blocks`.
    config = {k: v for k, v in short.get_config().items() if k != "blocks"}
    assert CCTBackbone.from_config(config).get_config() == short.get_config()


def test_saved_folded_and_counted(trained, tmp_path):
    expected = to_numpy(trained(IMAGES))
    trained.save_to_preset(tmp_path / "preset")
    assert read_config(tmp_path / "preset")["blocks"] == MIXED["blocks"]
    loaded = CCTBackbone.from_preset(tmp_path / "preset")
    np.testing.assert_allclose(to_numpy(loaded(IMAGES)), expected, atol=1e-5)
    folded = trained.fuse()
    np.testing.assert_allclose(to_numpy(folded(IMAGES)), expected, atol=1e-4)
    assert count_multiply_adds(folded) == count_multiply_adds(trained) > 0
    for changes in ({"blocks": ["conv"] * 4}, {"image_shape": (32, 32, 3)}):
        with pytest.raises(ValueError, match=f"trained with {[*changes][0]}=.*fit no other"):
            CCTBackbone.from_preset(tmp_path / "preset", **changes)


def test_only_transformer_blocks_have_heads(trained):
    heads = trained.intermediates(["block_3/head_outputs"])(IMAGES)
    assert tuple(heads["block_3/head_outputs"].shape) == (2, 16, 4, 4)
    with pytest.raises(ValueError, match="block_1/head_outputs"):
        trained.intermediates(["block_1/head_outputs"])


def test_surgery(trained):
    expected = to_numpy(trained(IMAGES))
    larger = grow(trained, num_layers=5, mlp_dim=24)
    assert larger.block_kinds == [*MIXED["blocks"], "attention"]
    assert larger.num_heads == [2, 4, 4]
    np.testing.assert_allclose(to_numpy(larger(IMAGES)), expected, atol=1e-3)
    knocking = convert_attention(trained, "knocking")
    np.testing.assert_allclose(to_numpy(knocking(IMAGES)), expected, atol=1e-4)
    hybrid = replace_blocks(trained, 2)
    assert hybrid.block_kinds == ["conv", "conv", "conv", "attention"]
    assert hybrid.num_heads == [4]
    pairs = zip(hybrid.blocks[3].weights, trained.blocks[3].weights, strict=True)
    for found, kept in pairs:
        np.testing.assert_array_equal(to_numpy(found), to_numpy(kept))
    with pytest.raises(ValueError, match="from 1 to 3"):
        replace_blocks(trained, 4)


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"blocks": ["conv"]}, "one entry per layer .2 here...*num_layers=2"),
        ({"blocks": "conv"}, "blocks='conv'"),
        ({"blocks": ["conv", "atention"]}, "attention"),
        ({"blocks": ["conv", "attention"], "num_conv_blocks": 1}, "num_conv_blocks=1"),
        ({"blocks": ["glmix", "attention"], "num_heads": [4]}, "num_heads=\\[4\\]"),
        ({"blocks": ["spectral", "glmix"], "num_heads": 3}, "num_heads=3"),
    ],
)
def test_bad_blocks(changes, message):
    with pytest.raises(ValueError, match=message):
        CCTBackbone(**SMALL | changes)
