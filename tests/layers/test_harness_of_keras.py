"""Keras's own test of a layer, run on each of ours."""

import pytest

import lsmha_keras as lsmha
from tests.layers.registry import LAYERS, layer_name

harness = pytest.importorskip(
    "keras.src.testing", reason="this version of Keras comes without its tests of layers"
)


@pytest.fixture
def case():
    case = harness.TestCase()
    case.setUp()
    yield case
    case.doCleanups()


@pytest.mark.parametrize("cls, arguments, shape", LAYERS, ids=layer_name)
def test_layer(case, cls, arguments, shape):
    case.run_layer_test(cls, arguments, input_shape=shape)


AUGMENTATIONS = [
    (lsmha.CutMix, {"alpha": 0.5}),
    (lsmha.HorizontalFlip, {"probability": 0.25}),
    (lsmha.MixUp, {"alpha": 0.5}),
    (lsmha.PadCrop, {"padding": 2}),
    (lsmha.RandAugment, {"num_ops": 1, "magnitude": 5}),
    (lsmha.RandomErasing, {"probability": 0.5}),
    (lsmha.ResizedCrop, {"area": (0.5, 1.0)}),
    (lsmha.OneOf, {"layers": [lsmha.MixUp(seed=1), lsmha.CutMix(seed=2)]}),
]


@pytest.mark.backend_free
@pytest.mark.parametrize("cls, arguments", AUGMENTATIONS, ids=layer_name)
def test_augmentation_layer(case, cls, arguments):
    """They take no symbolic tensors, so only the part on serialisation applies."""
    case.run_class_serialization_test(cls(**arguments, seed=3))
