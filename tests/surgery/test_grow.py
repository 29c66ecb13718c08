import keras
import numpy as np
import pytest

from lsmha_keras.layers.conv_block import ConvBlock
from lsmha_keras.models import CCTBackbone, CCTImageClassifier
from lsmha_keras.surgery.grow import grow
from tests.checks import random_images, random_tokens, to_numpy
from tests.surgery.test_replace_blocks import make_classifier


def shake(model):
    """Gives every weight another value than its first one, as training does."""
    rng = np.random.default_rng(0)
    for weight in model.backbone.trainable_weights:
        weight.assign(to_numpy(weight) + rng.normal(scale=0.1, size=weight.shape))
    return model


@pytest.mark.parametrize(
    ("num_layers", "mlp_dim"), [(5, None), (None, 40), (5, 40)], ids=["deeper", "wider", "both"]
)
def test_it_predicts_the_same_and_every_weight_learns(num_layers, mlp_dim):
    model = shake(make_classifier(num_conv_blocks=1, num_heads=[2, 5], head_dim=[4, 7]))
    images = random_images(8, 16, 12, 3)
    expected = model.predict(images, verbose=0)
    larger = grow(model, num_layers=num_layers, mlp_dim=mlp_dim)
    np.testing.assert_allclose(larger.predict(images, verbose=0), expected, atol=1e-4)
    assert larger.class_names == model.class_names
    added = (num_layers or 3) - 3
    assert larger.backbone.num_heads == [2, 5] + [5] * added
    assert larger.backbone.head_dim == [4, 7] + [7] * added
    assert larger.backbone.mlp_dim == (mlp_dim or 32)
    assert [isinstance(block, ConvBlock) for block in larger.backbone.blocks] == (
        [True, False, False] + [False] * added
    )
    # The first step moves what was zero, the second what lies before it.
    before = [to_numpy(weight).copy() for weight in larger.trainable_weights]
    # With so small an epsilon, small gradients move their weights as far as large ones.
    larger.compile(
        optimizer=keras.optimizers.Adam(1e-2, epsilon=1e-15),
        loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
    )
    larger.fit(images, np.arange(8) % 4, epochs=2, verbose=0)
    for weight, old in zip(larger.trainable_weights, before, strict=True):
        assert np.any(to_numpy(weight) != old), weight.path


@pytest.mark.parametrize("use_qkv_bias", [False, True])
def test_with_more_heads_it_predicts_the_same_and_the_new_ones_learn(use_qkv_bias):
    options = {"num_heads": [2, 5], "head_dim": [4, 7], "use_qkv_bias": use_qkv_bias}
    model = shake(make_classifier(num_conv_blocks=1, **options))
    images = random_images(8, 16, 12, 3)
    expected = model.predict(images, verbose=0)
    larger = grow(model, num_layers=4, num_heads=6)
    np.testing.assert_allclose(larger.predict(images, verbose=0), expected, atol=1e-4)
    assert larger.backbone.num_heads == 6 and larger.backbone.head_dim == [4, 7, 7]
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    larger.compile(optimizer="adam", loss=loss)
    larger.fit(images, np.arange(8) % 4, verbose=0)
    for block, heads, width in zip(larger.backbone.blocks[1:3], (2, 5), (4, 7), strict=True):
        rows = to_numpy(block.attention.projection.kernel)[heads * width :]
        assert np.all(np.any(rows != 0, axis=1))


def test_the_model_stays_as_it_is():
    model = make_classifier()
    before = model.get_weights()
    larger = grow(model.backbone, num_layers=4, mlp_dim=33)
    assert isinstance(larger, CCTBackbone)
    larger.set_weights([np.zeros_like(w) for w in larger.get_weights()])
    for old, new in zip(before, model.get_weights(), strict=True):
        np.testing.assert_array_equal(new, old)


def test_what_lora_learned_and_the_preset_survive(tmp_path):
    model = make_classifier()
    model.backbone.enable_lora(2)
    for layer in model.backbone._flatten_layers():
        if getattr(layer, "lora_enabled", False):
            layer.lora_kernel_b.assign(random_tokens(*layer.lora_kernel_b.shape))
    images = random_images(2, 16, 12, 3)
    expected = model.predict(images, verbose=0)
    grow(model, num_layers=4, mlp_dim=40).save_to_preset(tmp_path)
    loaded = CCTImageClassifier.from_preset(tmp_path)
    np.testing.assert_allclose(loaded.predict(images, verbose=0), expected, atol=1e-4)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({}, "num_layers=None, mlp_dim=None"),
        ({"num_layers": 3}, "more blocks than 3 or perceptrons wider than 32"),
        ({"num_layers": 2, "mlp_dim": 64}, "num_layers=2"),
        ({"num_layers": 4, "mlp_dim": 16}, "mlp_dim=16"),
        ({"num_layers": 4.5}, "positive int. Received: num_layers=4.5"),
        ({"mlp_dim": 0}, "positive int. Received: mlp_dim=0"),
        ({"num_heads": 2}, "more heads than.*Received: num_heads=2"),
        ({"num_heads": 0}, "positive int. Received: num_heads=0"),
    ],
)
def test_bad_arguments(arguments, message):
    with pytest.raises(ValueError, match=message):
        grow(make_classifier(), **arguments)


def test_models_that_cannot_grow():
    convolutional = make_classifier(num_conv_blocks=3, num_heads=4, head_dim=None)
    with pytest.raises(ValueError, match="only conv blocks"):
        grow(convolutional, num_layers=4)
    with pytest.raises(ValueError, match="more heads"):
        grow(convolutional, num_heads=8)
    with pytest.raises(ValueError, match="attention='talking' in block 0"):
        grow(make_classifier(attention="talking"), num_heads=8)
    quantised = make_classifier()
    quantised.quantize("int8")
    with pytest.raises(ValueError, match="int8"):
        grow(quantised, mlp_dim=64)
    with pytest.raises(ValueError, match="int8"):
        grow(quantised, num_heads=8)
