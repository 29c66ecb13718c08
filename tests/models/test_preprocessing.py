import keras
import numpy as np
import pytest

import lsmha_keras as lsmha
from lsmha_keras import presets
from lsmha_keras.models.cct_image_converter import CIFAR100_MEAN, CIFAR100_STD
from lsmha_keras.models.preprocessed_batches import PreprocessedBatches
from tests.checks import random_images, to_numpy


def test_normalises_by_mean_and_deviation():
    images = random_images(2, 8, 8, 3)
    converter = lsmha.CCTImageConverter.for_images((8, 8, 3))
    expected = (images / 255 - np.array(CIFAR100_MEAN)) / np.array(CIFAR100_STD)
    np.testing.assert_allclose(to_numpy(converter(images)), expected, atol=1e-5)
    np.testing.assert_allclose(to_numpy(converter(images[0])), expected[0], atol=1e-5)


def test_other_channels_use_the_averages():
    images = random_images(2, 8, 8, 1)
    converter = lsmha.CCTImageConverter.for_images((8, 8, 1))
    expected = (images / 255 - np.mean(CIFAR100_MEAN)) / np.mean(CIFAR100_STD)
    np.testing.assert_allclose(to_numpy(converter(images)), expected, atol=1e-5)


def test_preprocessing_is_float32_under_every_dtype_policy(tmp_path):
    images = random_images(2, 8, 8, 3)
    expected = to_numpy(lsmha.CCTImageConverter.for_images((8, 8, 3))(images))
    keras.config.set_dtype_policy("mixed_bfloat16")
    try:
        model = lsmha.CCTImageClassifier.from_preset(
            "cct_2_3x2", num_classes=2, image_shape=(8, 8, 3), hidden_dim=8, mlp_dim=8
        )
        assert model.backbone.dtype_policy.name == "mixed_bfloat16"
        np.testing.assert_array_equal(to_numpy(model.preprocessor(images)), expected)
        model.save_to_preset(tmp_path)
    finally:
        keras.config.set_dtype_policy("float32")
    for path in (tmp_path / "preprocessor.json", tmp_path / "image_converter.json"):
        assert "bfloat16" not in path.read_text()
        # As presets were written before.
        path.write_text(path.read_text().replace('"name": "float32"', '"name": "mixed_bfloat16"'))
    (tmp_path / presets.CHECKSUMS).unlink()
    preprocessor = lsmha.CCTImageClassifierPreprocessor.from_preset(str(tmp_path))
    np.testing.assert_array_equal(to_numpy(preprocessor(images)), expected)
    converter = lsmha.CCTImageConverter.from_preset(str(tmp_path))
    np.testing.assert_array_equal(to_numpy(converter(images)), expected)


def test_preprocessor_passes_labels_on():
    converter = lsmha.CCTImageConverter.for_images((8, 8, 3))
    preprocessor = lsmha.CCTImageClassifierPreprocessor(converter)
    images, labels, weights = random_images(2, 8, 8, 3), np.array([1, 2]), np.array([0.5, 1.0])
    x, y, w = preprocessor(images, labels, weights)
    np.testing.assert_allclose(to_numpy(x), to_numpy(converter(images)), atol=1e-6)
    assert to_numpy(y).tolist() == [1, 2] and to_numpy(w).tolist() == [0.5, 1.0]
    clone = lsmha.CCTImageClassifierPreprocessor.from_config(
        keras.saving.serialize_keras_object(preprocessor)["config"]
    )
    np.testing.assert_allclose(to_numpy(clone(images)), to_numpy(x), atol=1e-6)


def test_shuffling_keeps_rows_together_and_follows_the_seed():
    images = np.arange(10, dtype="uint8")[:, None]
    orders = []
    for _ in range(2):
        keras.utils.set_random_seed(3)
        batches = PreprocessedBatches(
            lambda x, y, w: (x, y), images, np.arange(10), batch_size=4, shuffle=True
        )
        epoch = []
        for _ in range(2):
            rows = [batches[i] for i in range(batches.num_batches)]
            x, y = (np.concatenate(parts) for parts in zip(*rows, strict=True))
            assert (x[:, 0] == y).all() and sorted(y) == list(range(10))
            epoch.append(y.tolist())
            batches.on_epoch_end()
        assert epoch[0] != epoch[1]
        orders.append(epoch)
    assert orders[0] == orders[1]


@pytest.mark.parametrize("shape", [(8, 8), (2, 8, 8, 4), (1, 2, 8, 8, 3)])
def test_bad_shapes(shape):
    with pytest.raises(ValueError, match=r"Received: images of shape"):
        lsmha.CCTImageConverter.for_images((8, 8, 3))(np.zeros(shape, "uint8"))


def test_converter_config():
    converter = lsmha.CCTImageConverter.for_images((8, 8, 3))
    clone = lsmha.CCTImageConverter.from_config(converter.get_config())
    assert clone.get_config() == converter.get_config()
