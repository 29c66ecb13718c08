"""Quantised models, with and without LoRA, in `fuse` and `replace_blocks`, and saved twice."""

import keras
import numpy as np
import pytest

import lsmha_keras as lsmha
from tests.checks import random_images, random_tokens, to_numpy
from tests.models.test_cct_image_classifier import small_classifier

pytestmark = pytest.mark.filterwarnings("ignore:Layer .* does not have a `quantize`")
IMAGES = random_tokens(2, 16, 16, 3)
# Weights only, so that a layer of the identity is its kernel.
WEIGHTS_ONLY = {
    "int8": keras.quantizers.Int8QuantizationConfig(activation_quantizer=None),
    "int4": keras.quantizers.Int4QuantizationConfig(activation_quantizer=None, block_size=None),
}


def quantised(mode, **kwargs):
    model = small_classifier(use_qkv_bias=True, **kwargs)
    for seed, weight in enumerate(model.trainable_weights):
        if "gamma" not in weight.path:
            weight.assign(0.2 * random_tokens(*weight.shape, seed=seed))
    if mode in WEIGHTS_ONLY:
        model.quantize(config=WEIGHTS_ONLY[mode])
    else:
        model.quantize(mode.removesuffix(" by default"))
    if mode == "float8":  # Its scales are found out in training.
        model.fit(random_images(8, 16, 16, 3), np.arange(8) % 5, verbose=0)
    return model


def learn_by_lora(model):
    model.backbone.enable_lora(2)
    for part in model.backbone._flatten_layers():
        if getattr(part, "lora_enabled", False):
            part.lora_kernel_b.assign(0.3 * random_tokens(*part.lora_kernel_b.shape))


MODES = ["int8", "int4", "int8 by default", "int4 by default", "float8"]


@pytest.mark.parametrize("mode", MODES)
def test_fused_and_saved_twice(mode, tmp_path):
    model = quantised(mode, conv_block_design="reparameterized")
    logits = to_numpy(model(IMAGES))
    fused = model.fuse()
    assert fused.backbone.blocks[1].mlp_hidden.quantization_mode == mode.split()[0]
    np.testing.assert_allclose(to_numpy(fused(IMAGES)), logits, atol=1e-5)
    for part in (fused, model):
        for turn in range(2):  # What was loaded can be saved again.
            part.save_to_preset(tmp_path / str(turn))
            part = lsmha.CCTImageClassifier.from_preset(tmp_path / str(turn))
            np.testing.assert_allclose(to_numpy(part(IMAGES)), logits, atol=1e-5)


@pytest.mark.parametrize("mode", MODES)
def test_blocks_that_stay_in_a_hybrid_give_the_same(mode):
    model = quantised(mode, num_conv_blocks=0)
    hybrid = lsmha.replace_blocks(model, num_blocks=1)
    tokens = random_tokens(2, *model.backbone.output.shape[1:])
    found, expected = (to_numpy(m.backbone.blocks[1](tokens)) for m in (hybrid, model))
    np.testing.assert_allclose(found, expected, atol=1e-5)
    assert np.isfinite(to_numpy(hybrid(IMAGES))).all()


@pytest.mark.parametrize("reloaded", [False, True])
@pytest.mark.parametrize("mode, levels", [("int8", 127), ("int4", 7)])
def test_what_lora_learned_is_within_half_a_step_of_quantisation(mode, levels, reloaded, tmp_path):
    model = quantised(mode)
    if reloaded:
        model.save_to_preset(tmp_path)
        model = lsmha.CCTImageClassifier.from_preset(tmp_path)
    before = to_numpy(model.backbone.blocks[1].attention.qkv(np.eye(16)))
    learn_by_lora(model)
    adapted = model.backbone.blocks[1].attention.qkv
    bias = to_numpy(adapted.bias)
    kernel = to_numpy(adapted(np.eye(16))) - bias
    product = to_numpy(adapted.lora_kernel_a) @ to_numpy(adapted.lora_kernel_b)
    product *= adapted.lora_alpha / adapted.lora_rank
    np.testing.assert_allclose(kernel, before - bias + product, atol=1e-5)
    assert np.abs(product).max() > 0.1  # many steps
    half_a_step = np.abs(kernel).max(0) / levels / 2
    model.save_to_preset(tmp_path)
    loaded = lsmha.CCTImageClassifier.from_preset(tmp_path)
    for copy in (model.fuse(), loaded):
        found = to_numpy(copy.backbone.blocks[1].attention.qkv(np.eye(16))) - bias
        assert (np.abs(found - kernel) <= half_a_step * 1.01 + 1e-6).all()


def test_lora_in_float8_is_refused():
    model = quantised("float8", num_conv_blocks=0)
    learn_by_lora(model)
    for make in (model.fuse, lambda: lsmha.replace_blocks(model, 1)):
        with pytest.raises(ValueError, match="before the model is quantised.*float8 in .*qkv"):
            make()
