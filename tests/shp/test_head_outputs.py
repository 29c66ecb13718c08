import importlib.util
import pathlib

import keras
import numpy as np
import pytest
from keras import ops

from lsmha_keras.shp.head_outputs import HeadOutputs, check_blocks
from lsmha_keras.shp.performance import single_head_performance
from lsmha_keras.shp.readout_trainer import fit_readout
from tests.checks import random_images, to_numpy
from tests.shp.models import pictures, small_classifier


def load_example():
    path = pathlib.Path(__file__).parents[2] / "examples" / "shp_of_any_keras_model.py"
    spec = importlib.util.spec_from_file_location(path.stem, path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def foreign():
    """A model with `keras.layers.MultiHeadAttention` that does not use this package."""
    keras.utils.set_random_seed(0)
    model = load_example().PatchTransformer(num_classes=5, num_heads=4, width=16)
    model(np.zeros((1, 16, 16, 3), "float32"))
    return model


def test_keras_attention_gives_its_head_outputs(foreign):
    """The output projection of the head outputs is the layer's output."""
    images = random_images(2, 16, 16, 3)
    trunk = HeadOutputs(foreign)
    heads = trunk(trunk.prepare(images))
    assert {block: tuple(h.shape) for block, h in heads.items()} == {
        0: (2, 4, 4, 4),
        1: (2, 4, 4, 4),
    }
    x = foreign.tokens(foreign.patches(foreign.rescale(images)))
    for block, (norm, attention) in enumerate(zip(foreign.norms, foreign.attentions, strict=True)):
        output = attention(norm(x), norm(x))
        projected = attention.output_dense(heads[block])
        np.testing.assert_allclose(to_numpy(projected), to_numpy(output), atol=1e-5)
        x = x + output


def test_foreign_model_is_analysed(foreign):
    """Frozen fields sum to the readout's logits, computed here from the head outputs."""
    images, labels = pictures(40)
    readouts = fit_readout(
        foreign, (images, labels), blocks=[1], num_labels=5, epochs=2, batch_size=20, verbose=0
    )
    result = single_head_performance(foreign, readouts, (images, labels), "frozen", verbose=0)[1]
    heads = to_numpy(foreign.head_outputs(images.astype("float32"))[1]).reshape(40, 4, 16)
    w, b, kernel = readouts.weights[1]
    scores = np.exp(heads @ w + b)
    logits = (scores / scores.sum(axis=1, keepdims=True) * heads).sum(axis=1) @ kernel
    for label in range(5):
        found = result.class_means.sum(axis=0)[label]
        np.testing.assert_allclose(found, logits[labels == label].mean(axis=0), atol=1e-4)


def test_our_models_pass_their_preprocessor():
    model = small_classifier()
    images = random_images(3, 20, 20, 3)  # resized to 16
    trunk = HeadOutputs(model, [2])
    found = trunk(trunk.prepare(images))
    expected = model.intermediates(["block_2/head_outputs"])(model.preprocessor(images))
    assert list(found) == [2]
    np.testing.assert_allclose(
        to_numpy(found[2]), to_numpy(expected["block_2/head_outputs"]), atol=1e-6
    )
    backbone = HeadOutputs(model.backbone, [2])
    direct = backbone(backbone.prepare(to_numpy(model.preprocessor(images))))
    np.testing.assert_allclose(to_numpy(direct[2]), to_numpy(found[2]), atol=1e-6)


class Flat(keras.Model):
    def head_outputs(self, images):
        return {0: ops.reshape(images, (ops.shape(images)[0], -1))}


@pytest.mark.parametrize(
    "call, message",
    [
        (lambda: HeadOutputs(keras.Sequential()), "method `head_outputs.*Received: Sequential"),
        (lambda: HeadOutputs(small_classifier(num_conv_blocks=4)), "attention blocks"),
        (lambda: HeadOutputs(Flat()).shapes((4, 4, 1)), r"\(1, 16\)"),
        (lambda: check_blocks([1, 3], [1, 2]), r"some of \[1, 2\].*blocks=\[1, 3\]"),
    ],
)
def test_errors(call, message):
    with pytest.raises(ValueError, match=message):
        call()
