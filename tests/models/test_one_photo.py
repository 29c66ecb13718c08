"""A photo gives the same answer through every entry point."""

import json

import keras
import numpy as np
import pytest
from PIL import Image

import lsmha_keras as lsmha
from lsmha_keras import cli
from lsmha_keras.images import resize_image
from tests.checks import to_numpy

SIZES = [(427, 640), (640, 427), (20, 26), (40, 20)]


def photo(height, width):
    """A smooth picture with detail that aliases without an antialiasing filter."""
    y, x = np.mgrid[:height, :width]
    smooth = 127 + 80 * np.sin(x / width * 5) * np.cos(y / height * 3)
    detail = 40 * ((x // 3 + y // 2) % 2)
    channels = [smooth + detail, 255 * x / width - detail, 200 * y / height + detail]
    return np.clip(np.stack(channels, axis=-1), 0, 255).astype("uint8")


@pytest.fixture(scope="module")
def classifier():
    return lsmha.CCTImageClassifier.from_preset("lsmha-small")


def triangle_weights(stored, start, length, size):
    """Pillow's triangle filter in float64, from its definition."""
    scale = length / size
    support = max(scale, 1)
    centres = start + (np.arange(size) + 0.5) * scale
    distances = np.abs(np.arange(stored) + 0.5 - centres[:, None]) / support
    weights = np.maximum(1 - distances, 0)
    return weights / weights.sum(axis=1, keepdims=True)


@pytest.mark.parametrize("shape", SIZES)
@pytest.mark.parametrize("size", [(32, 32), (24, 40)])
def test_the_resize_is_a_centre_crop_with_a_triangle_filter(shape, size):
    image = photo(*shape)
    height, width = shape
    crop = min(height, width * size[0] // size[1]), min(width, height * size[1] // size[0])
    rows = triangle_weights(height, (height - crop[0]) // 2, crop[0], size[0])
    columns = triangle_weights(width, (width - crop[1]) // 2, crop[1], size[1])
    expected = np.einsum("ih,hwc,jw->ijc", rows, image.astype("float64"), columns, optimize=True)
    # Rounded after the columns and after the rows, by at most 0.5 each; weights of 22 bits.
    np.testing.assert_allclose(resize_image(image, size).astype("float64"), expected, atol=1.01)


@pytest.mark.parametrize("channels", [1, 2, 3, 4, 5])
@pytest.mark.parametrize("dtype", ["uint8", "float32", "int64"])
def test_channels_are_resized_one_by_one(channels, dtype):
    image = np.resize(photo(50, 70), (50, 70, channels)).astype(dtype)
    resized = resize_image(image, (9, 12))
    assert resized.dtype == image.dtype
    for k in range(channels):
        expected = resize_image(image[..., k : k + 1].astype("uint8"), (9, 12))
        np.testing.assert_array_equal(resized[..., k : k + 1], expected)


def test_fractions_are_rounded_if_the_size_differs():
    image = photo(40, 60).astype("float32")
    expected = resize_image(image, (8, 8))
    np.testing.assert_array_equal(resize_image(image + 0.4, (8, 8)), expected)
    assert resize_image(image + 0.4, (40, 60))[0, 0, 0] == image[0, 0, 0] + np.float32(0.4)


@pytest.mark.parametrize("shape", SIZES)
def test_every_path_gives_the_same_logits(shape, classifier, tmp_path, capsys):
    image = photo(*shape)
    expected = classifier.predict(resize_image(image, (32, 32))[None], verbose=0)[0]
    given = {
        "uint8": image[None],
        "one image": image,
        "float32": image[None].astype("float32"),
        "list": [image],
        "tensor": keras.ops.convert_to_tensor(image[None].astype("float32")),
        "PyDataset": Batches(image),
    }
    found = {name: classifier.predict(x, verbose=0)[0] for name, x in given.items()}
    preprocessed = to_numpy(classifier.preprocessor(image[None]))
    found["preprocessor"] = to_numpy(classifier(preprocessed))[0]
    found["committee"] = lsmha.SoftCommittee([classifier]).predict_members(image[None])[0, 0]
    path = tmp_path / "photos" / "a" / "photo.png"
    path.parent.mkdir(parents=True)
    Image.fromarray(image).save(path)
    folder = lsmha.open_dataset(str(tmp_path / "photos"), "train", image_size=32)
    found["folder"] = classifier.predict(folder.load([0]), verbose=0)[0]
    for name, logits in found.items():
        np.testing.assert_allclose(logits, expected, atol=1e-3, err_msg=name)

    capsys.readouterr()
    assert cli.main(["predict", "lsmha-small", str(path), "--json"]) == 0
    (result,) = json.loads(capsys.readouterr().out)
    scores = classifier.probabilities(expected[None])[0]
    for entry in result["classes"]:
        assert entry["score"] == pytest.approx(scores[entry["label"]], abs=1e-4)


class Batches(keras.utils.PyDataset):
    def __init__(self, image):
        super().__init__()
        self.image = image

    def __len__(self):
        return 1

    def __getitem__(self, index):
        return (self.image[None],)


@pytest.mark.parametrize("shape", SIZES)
@pytest.mark.parametrize("dtype", ["uint8", "float32"])
def test_tf_data_gives_the_same_logits(shape, dtype, classifier):
    tf = pytest.importorskip("tensorflow")
    image = photo(*shape)
    expected = classifier.predict(image[None], verbose=0)
    images = tf.data.Dataset.from_tensors(image.astype(dtype))
    before = images.batch(1)
    after = images.map(classifier.preprocessor.image_converter).batch(1)
    np.testing.assert_allclose(classifier.predict(before, verbose=0), expected, atol=1e-3)
    found = np.concatenate([to_numpy(classifier(x.numpy())) for x in after])
    np.testing.assert_allclose(found, expected, atol=1e-3)


def test_a_converter_inside_a_model_resizes_the_same_way(classifier):
    converter = classifier.preprocessor.image_converter
    image = photo(40, 60)[None].astype("float32")
    inputs = keras.Input((40, 60, 3))
    model = keras.Model(inputs, converter(inputs))
    found = model.predict(image, verbose=0)
    np.testing.assert_allclose(found, to_numpy(converter(image)), atol=1e-6)


def test_images_of_the_models_size_pass_untouched():
    converter = lsmha.CCTImageConverter(image_size=(32, 32))
    image = np.random.default_rng(0).uniform(0, 255, (2, 32, 32, 3)).astype("float32")
    np.testing.assert_array_equal(to_numpy(converter(image)), image)


def test_old_presets_follow_the_rule_and_others_are_refused():
    converter = lsmha.CCTImageConverter.for_images((8, 8, 3))
    config = converter.get_config()
    assert config["antialias"] and config["crop_to_aspect_ratio"]
    old = lsmha.CCTImageConverter.from_config({**config, "antialias": False})
    assert old.get_config() == config
    with pytest.raises(ValueError, match="always resizes with.*Received: antialias=False"):
        lsmha.CCTImageConverter.for_images((8, 8, 3), antialias=False)
    with pytest.raises(ValueError, match="Received: interpolation='nearest'"):
        lsmha.CCTImageConverter((8, 8), interpolation="nearest")
