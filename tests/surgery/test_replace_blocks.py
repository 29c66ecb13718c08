import numpy as np
import pytest

from lsmha_keras.layers.conv_block import DESIGNS, ConvBlock
from lsmha_keras.models import (
    CCTBackbone,
    CCTImageClassifier,
    CCTImageClassifierPreprocessor,
    CCTImageConverter,
)
from lsmha_keras.surgery.replace_blocks import replace_blocks
from tests.checks import random_images, random_tokens, to_numpy

SMALL = {
    "image_shape": (16, 12, 3),
    "hidden_dim": 24,
    "num_layers": 3,
    "num_heads": [2, 3, 5],
    "head_dim": [4, 8, 7],
    "mlp_dim": 32,
    "tokenizer_filters": 8,
}


def make_classifier(**changes):
    backbone = CCTBackbone(**{**SMALL, **changes})
    preprocessor = CCTImageClassifierPreprocessor(
        CCTImageConverter.for_images(backbone.image_shape)
    )
    return CCTImageClassifier(backbone, 4, preprocessor, class_names=list("abcd"), dropout=0.1)


def test_everything_else_keeps_its_weights():
    model = make_classifier()
    hybrid = replace_blocks(model, 2)
    assert [type(block) is ConvBlock for block in hybrid.backbone.blocks] == [True, True, False]
    assert hybrid.backbone.num_heads == [5] and hybrid.backbone.head_dim == [7]
    assert (hybrid.class_names, hybrid.dropout) == (model.class_names, 0.1)
    # The rest of the hybrid is the rest of the model: from its tokens on they agree.
    images = random_tokens(2, 16, 12, 3)
    tokens = hybrid.backbone.intermediates(["block_1/output"])(images)["block_1/output"]
    tokens = model.backbone.layer_norm(model.backbone.blocks[2](tokens))
    expected = model.output_dense(model.pooler(tokens))
    np.testing.assert_allclose(to_numpy(hybrid(images)), to_numpy(expected), atol=1e-5)
    before = model.backbone.intermediates(["embedding"])(images)["embedding"]
    after = hybrid.backbone.intermediates(["embedding"])(images)["embedding"]
    np.testing.assert_array_equal(to_numpy(after), to_numpy(before))


def test_the_model_stays_as_it_is():
    model = make_classifier()
    before = model.get_weights()
    hybrid = replace_blocks(model, 1)
    hybrid.set_weights([np.zeros_like(w) for w in hybrid.get_weights()])
    for old, new in zip(before, model.get_weights(), strict=True):
        np.testing.assert_array_equal(new, old)


def test_blocks_replaced_before_stay():
    once = replace_blocks(make_classifier(), 1, design="separable")
    twice = replace_blocks(once, 2, design="separable")
    images = random_tokens(2, 16, 12, 3)
    name = "block_0/output"
    expected = once.backbone.intermediates([name])(images)[name]
    found = twice.backbone.intermediates([name])(images)[name]
    np.testing.assert_allclose(to_numpy(found), to_numpy(expected), atol=1e-6)


@pytest.mark.parametrize("design", DESIGNS)
def test_hybrid_learns_fuses_and_survives_saving(design, tmp_path):
    images, labels = random_images(16, 16, 12, 3), np.arange(16) % 4
    hybrid = replace_blocks(make_classifier(), 1, design=design)
    hybrid.compile()
    hybrid.fit(images, labels, epochs=2, verbose=0)
    expected = hybrid.predict(images, verbose=0)
    fused = hybrid.fuse()
    assert fused.count_params() < hybrid.count_params()
    np.testing.assert_allclose(fused.predict(images, verbose=0), expected, atol=1e-4)
    fused.save_to_preset(tmp_path)
    loaded = CCTImageClassifier.from_preset(tmp_path)
    assert loaded.backbone.fused_conv_blocks
    np.testing.assert_allclose(loaded.predict(images, verbose=0), expected, atol=1e-4)


def test_fusing_without_conv_blocks_copies():
    model = make_classifier()
    images = random_tokens(2, 16, 12, 3)
    np.testing.assert_allclose(to_numpy(model.fuse()(images)), to_numpy(model(images)), atol=1e-6)


@pytest.mark.parametrize("num_blocks", [0, 3, -1])
def test_zero_or_all_blocks(num_blocks):
    with pytest.raises(ValueError, match=rf"from 1 to 2. Received: num_blocks={num_blocks}"):
        replace_blocks(make_classifier(), num_blocks)


def test_bad_arguments():
    model = make_classifier()
    with pytest.raises(ValueError, match="num_blocks=1.0"):
        replace_blocks(model, 1.0)
    with pytest.raises(ValueError, match="design='dense'"):
        replace_blocks(model, 1, design="dense")
    hybrid = replace_blocks(model, 1, design="full")
    with pytest.raises(ValueError, match="from 2 to 2"):
        replace_blocks(hybrid, 1)
    with pytest.raises(ValueError, match="design='separable'"):
        replace_blocks(hybrid, 2, design="separable")
    with pytest.raises(ValueError, match="fused=True"):
        replace_blocks(hybrid.fuse(), 2, design="full")


def test_what_lora_learned_stays_in_hybrids_and_fused_models():
    model = make_classifier(num_conv_blocks=1, num_heads=[3, 5], head_dim=[8, 7])
    model.backbone.enable_lora(2)
    for layer in model.backbone._flatten_layers():
        if getattr(layer, "lora_enabled", False):
            layer.lora_kernel_b.assign(random_tokens(*layer.lora_kernel_b.shape))
    images = random_images(2, 16, 12, 3)
    expected = model.predict(images, verbose=0)
    fused = model.fuse()
    np.testing.assert_allclose(fused.predict(images, verbose=0), expected, atol=1e-4)
    assert len(fused.backbone.blocks[1].weights) == len(
        make_classifier().backbone.blocks[1].weights
    )
    hybrid = replace_blocks(model, 2)
    # The last block is the only one left; what it computes from the same tokens stays.
    tokens = random_tokens(2, 48, 24)
    np.testing.assert_allclose(
        to_numpy(hybrid.backbone.blocks[2](tokens)),
        to_numpy(model.backbone.blocks[2](tokens)),
        atol=1e-4,
    )
