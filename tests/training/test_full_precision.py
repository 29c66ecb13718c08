"""Models trained in a lower precision compute in float32 afterwards."""

import keras
import numpy as np
import pytest

from lsmha_keras.models import CCTBackbone, CCTImageClassifier
from lsmha_keras.training.training_state import full_precision
from tests.checks import assert_rounded, count_roundings


def classifier(precision):
    keras.utils.set_random_seed(0)
    backbone = CCTBackbone(
        image_shape=(8, 8, 3),
        hidden_dim=8,
        num_layers=2,
        num_heads=4,
        mlp_dim=8,
        num_conv_blocks=1,
        dtype=precision,
    )
    model = CCTImageClassifier(backbone, num_classes=3, class_names=["a", "b", "c"])
    # Its own small ones would give logits as small as the tolerance.
    model.output_dense.set_weights([np.random.default_rng(1).normal(size=(8, 3)), np.arange(3.0)])
    return model


@pytest.mark.parametrize("precision", ["mixed_bfloat16", "mixed_float16", "bfloat16"])
def test_the_weights_are_the_same_and_the_logits_as_near_as_rounding_allows(precision):
    model = classifier(precision)
    images = np.random.default_rng(0).normal(size=(4, 8, 8, 3)).astype("float32")
    full = full_precision(model)
    assert {str(v.dtype) for v in full.weights if "seed" not in v.path} == {"float32"}
    for ours, theirs in zip(full.weights, model.weights, strict=True):
        np.testing.assert_array_equal(
            np.asarray(ours, dtype="float32"), np.asarray(theirs, dtype="float32")
        )
    logits = full.predict(images, verbose=0)
    assert logits.dtype == np.float32 and logits.std() > 0.5
    found = np.asarray(model.predict(images, verbose=0), "float32")
    assert_rounded(found, logits, precision.removeprefix("mixed_"), count_roundings(model))
    assert full.class_names == ["a", "b", "c"]


def test_a_float32_model_stays_itself():
    model = classifier("float32")
    assert full_precision(model) is model
