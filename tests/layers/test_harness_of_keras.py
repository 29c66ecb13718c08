"""Keras's own test of a layer, run on each of ours."""

import pytest

from tests.layers.registry import AUGMENTATIONS, LAYERS, layer_name

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


@pytest.mark.backend_free
@pytest.mark.parametrize("cls, arguments", AUGMENTATIONS, ids=layer_name)
def test_augmentation_layer(case, cls, arguments):
    case.run_class_serialization_test(cls(**arguments))
