"""Channels come last; every entry point refuses another order."""

import keras
import numpy as np
import pytest

import lsmha_keras as lsmha
from tests.checks import random_images, random_tokens, to_numpy
from tests.layers.registry import AUGMENTATIONS
from tests.models.test_cct_image_classifier import small_classifier

WAY_OUT = r'set_image_data_format\("channels_last"\).*np.moveaxis.*data_format=.channels_first'
ENTRIES = {
    "tokenizer": lambda **order: lsmha.ConvTokenizer(8, **order),
    "backbone": lambda **order: lsmha.CCTBackbone(hidden_dim=8, **order),
    "backbone of a preset": lambda **order: lsmha.CCTBackbone.from_preset("lsmha-small", **order),
    "classifier": lambda **order: lsmha.CCTImageClassifier.from_preset("lsmha-small", **order),
    "architecture": lambda **order: lsmha.CCTImageClassifier.from_preset(
        "cct_2_3x2", num_classes=2, **order
    ),
    "converter": lambda **order: lsmha.CCTImageConverter(image_size=(8, 8), **order),
    "normalising converter": lambda **order: lsmha.CCTImageConverter.for_images((8, 8, 3), **order),
    **{
        cls.__name__: lambda cls=cls, given=given, **order: cls(**given, **order)
        for cls, given in AUGMENTATIONS
    },
}


@pytest.fixture
def channels_first():
    """Keras's setting for all layers, as a `keras.json` may have it."""
    keras.config.set_image_data_format("channels_first")
    yield
    keras.config.set_image_data_format("channels_last")


@pytest.mark.parametrize("entry", ENTRIES)
def test_channels_first_is_refused(entry):
    with pytest.raises(ValueError, match=WAY_OUT):
        ENTRIES[entry](data_format="channels_first")


@pytest.mark.parametrize("entry", ENTRIES)
def test_the_setting_of_keras_is_refused(entry, channels_first):
    with pytest.raises(ValueError, match=WAY_OUT):
        ENTRIES[entry]()


@pytest.mark.parametrize("entry", ENTRIES)
def test_channels_last_is_accepted(entry):
    assert ENTRIES[entry](data_format="channels_last") is not None


def test_what_was_built_before_gives_the_same_after_a_change_of_the_setting():
    images = random_images(2, 20, 16, 3)
    model = small_classifier(conv_block_design="inverted_bottleneck", tokenizer_layers=2)
    logits = model.predict(images, verbose=0)
    keras.config.set_image_data_format("channels_first")
    try:
        np.testing.assert_allclose(model.predict(images, verbose=0), logits, atol=1e-5)
        with pytest.raises(ValueError, match=r"\(batch, height, width, channels\)"):
            model.predict(np.moveaxis(images, 3, 1), verbose=0)
    finally:
        keras.config.set_image_data_format("channels_last")


def test_layers_of_tokens_do_not_depend_on_the_setting(channels_first):
    """A convolutional block takes tokens, whose order does not depend on the setting."""
    x = random_tokens(2, 12, 8)
    block = lsmha.ConvBlock((3, 4), design="reparameterized")
    block(x, training=True)
    outputs = [to_numpy(block(x, training=False))]
    keras.config.set_image_data_format("channels_last")
    copy = lsmha.ConvBlock.from_config(block.get_config())
    copy(x)
    copy.set_weights(block.get_weights())
    outputs.append(to_numpy(copy(x, training=False)))
    np.testing.assert_allclose(outputs[0], outputs[1], atol=1e-6)
