"""What all augmentation layers share: calls, configurations, use inside `tf.data`."""

import inspect

import keras
import numpy as np
import pytest

from lsmha_keras.data import (
    CutMix,
    HorizontalFlip,
    MixUp,
    OneOf,
    PadCrop,
    RandAugmentPerImage,
    RandomErasing,
    ResizedCrop,
)

LAYERS = [
    PadCrop(3, seed=5),
    HorizontalFlip(0.25, seed=5),
    ResizedCrop([0.5, 0.9], [0.8, 1.5], seed=5),
    RandAugmentPerImage(3, 8, 0.25, 0.75, ["Invert", "Rotate", "Equalize"], 9, "nearest", seed=5),
    RandomErasing(0.5, [0.1, 0.2], [0.5, 2.0], seed=5),
    MixUp(0.3, seed=5),
    CutMix(0.7, seed=5),
    OneOf([MixUp(0.2), CutMix(0.6)], seed=5),
]
parametrize = pytest.mark.parametrize("layer", LAYERS, ids=lambda layer: type(layer).__name__)


def renew(layer):
    return keras.saving.deserialize_keras_object(keras.saving.serialize_keras_object(layer))


def batch_for(layer, count=24):
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (count, 16, 12, 3), dtype="uint8")
    labels = np.eye(8, dtype="float32")[rng.integers(8, size=count)]
    return {"images": images, "labels": labels}


@parametrize
def test_config_holds_the_arguments_and_restores_the_layer(layer):
    config = layer.get_config()
    arguments = set(inspect.signature(type(layer)).parameters) - {"kwargs"}
    assert set(config) == arguments | {"name", "trainable", "dtype"}
    again = renew(layer)
    assert type(again) is type(layer) and again.get_config() == config
    for name in arguments - {"layers"}:
        assert getattr(again, name) == getattr(layer, name)
    assert keras.saving.get_registered_name(type(layer)).startswith("lsmha_keras>")


@parametrize
def test_eager_call_equals_augment_with_the_layers_seed(layer):
    given = batch_for(layer)
    before = {key: value.copy() for key, value in given.items()}
    expected = layer.augment(given["images"], given["labels"], np.random.default_rng(5))
    result = renew(layer)(given)
    for key, value in zip(("images", "labels"), expected, strict=True):
        assert np.array_equal(keras.ops.convert_to_numpy(result[key]), value)
        assert np.array_equal(given[key], before[key])  # not changed in place
    assert keras.ops.is_tensor(result["images"])
    assert not np.array_equal(expected[0], given["images"])
    assert expected[0].dtype == np.uint8 and expected[0].shape == given["images"].shape


@parametrize
def test_call_inside_tf_data_equals_eager_call(layer):
    tf = pytest.importorskip("tensorflow")
    given = batch_for(layer, 30)
    eager, in_graph = renew(layer), renew(layer)
    dataset = tf.data.Dataset.from_tensor_slices(given).batch(12).map(in_graph)
    assert dataset.element_spec["images"].shape.as_list() == [None, 16, 12, 3]
    for number, result in enumerate(dataset):
        part = {key: value[12 * number : 12 * number + 12] for key, value in given.items()}
        expected = eager(part)
        for key, value in expected.items():
            assert np.array_equal(result[key].numpy(), keras.ops.convert_to_numpy(value))


def test_images_alone_and_inference():
    images = batch_for(None)["images"]
    layer = PadCrop(4, seed=1)
    assert layer(images, training=False) is images
    result = keras.ops.convert_to_numpy(layer(images))
    assert result.shape == images.shape and not np.array_equal(result, images)
    assert layer.compute_output_shape((None, 16, 12, 3)) == (None, 16, 12, 3)


def test_bad_input():
    layer, images = HorizontalFlip(), batch_for(None)["images"]
    with pytest.raises(ValueError, match=r"\(batch, height, .*Received: shape=\(16, 12, 3\)"):
        layer(images[0])
    with pytest.raises(ValueError, match=r"0 .. 255. Received: values from -1.0 to 1.0"):
        layer(np.array([-1, 1], dtype="float32").reshape(2, 1, 1, 1))
    with pytest.raises(ValueError, match="'images' and 'labels'"):
        MixUp()(images)
    with pytest.raises(ValueError, match="belongs in the input pipeline"):
        layer(keras.Input((16, 12, 3)))


def test_map_before_batch_is_refused():
    tf = pytest.importorskip("tensorflow")
    dataset = tf.data.Dataset.from_tensor_slices(batch_for(None)["images"])
    with pytest.raises(ValueError, match="call `dataset.batch` before"):
        dataset.map(PadCrop(4))
