"""TensorFlow Datasets, on a dataset that the test makes."""

import sys

import numpy as np
import pytest

import lsmha_keras as lsmha

tfds = pytest.importorskip("tensorflow_datasets")
pytest.importorskip("array_record")

pytestmark = pytest.mark.backend_free


class TinyPictures(tfds.core.GeneratorBasedBuilder):
    """One-coloured pictures of increasing height."""

    VERSION = tfds.core.Version("1.0.0")

    def _info(self):
        features = {
            "image": tfds.features.Image(shape=(None, None, 3)),
            "label": tfds.features.ClassLabel(names=["even", "odd"]),
        }
        return tfds.core.DatasetInfo(builder=self, features=tfds.features.FeaturesDict(features))

    def _split_generators(self, dl_manager):
        return {"train": self._generate_examples(10), "test": self._generate_examples(4)}

    def _generate_examples(self, count):
        for number in range(count):
            picture = np.full((8 + number, 8, 3), number, "uint8")
            yield number, {"image": picture, "label": number % 2}


class TinyNumbers(tfds.core.GeneratorBasedBuilder):
    """A dataset without images."""

    VERSION = tfds.core.Version("1.0.0")

    def _info(self):
        features = tfds.features.FeaturesDict({"x": np.int32})
        return tfds.core.DatasetInfo(builder=self, features=features)

    def _split_generators(self, dl_manager):
        return {"train": self._generate_examples()}

    def _generate_examples(self):
        yield 0, {"x": 1}


class TinyReviews(tfds.core.GeneratorBasedBuilder):
    """Labelled texts."""

    VERSION = tfds.core.Version("1.0.0")

    def _info(self):
        features = {
            "sentence": tfds.features.Text(),
            "label": tfds.features.ClassLabel(names=["bad", "good"]),
        }
        return tfds.core.DatasetInfo(builder=self, features=tfds.features.FeaturesDict(features))

    def _split_generators(self, dl_manager):
        return {"train": self._generate_examples(6), "test": self._generate_examples(2)}

    def _generate_examples(self, count):
        for number in range(count):
            yield number, {"sentence": f"Ça va {number} ?", "label": number % 2}


@pytest.mark.parametrize("file_format", ["array_record", "tfrecord"])
def test_texts(file_format, tmp_path):
    if file_format == "tfrecord":
        pytest.importorskip("tensorflow")
        builder = tfds.builder("tiny_reviews", data_dir=tmp_path)
        builder.download_and_prepare(file_format=file_format)
    train = lsmha.open_dataset("tiny_reviews", "train", tmp_path)
    assert train.is_text and train.class_names == ["bad", "good"] and len(train) == 6
    numbers = [int(text.split()[2]) for text in train.load(range(6))]
    assert sorted(numbers) == list(range(6)) and train.load([0])[0].startswith("Ça va")
    assert train.labels.tolist() == [number % 2 for number in numbers]
    assert len(lsmha.open_dataset("tiny_reviews", "test", tmp_path)) == 2
    with pytest.raises(ValueError, match="has the splits train, test"):
        lsmha.open_dataset("tiny_reviews", "valid", tmp_path)


def check(data_dir):
    dataset = lsmha.open_dataset("tiny_pictures", "train", data_dir, image_size=8)
    images = dataset.load(range(10))
    assert images.shape == (10, 8, 8, 3) and dataset.class_names == ["even", "odd"]
    levels = images[:, 0, 0, 0]
    assert sorted(levels) == list(range(10)) and (images == levels[:, None, None, None]).all()
    assert np.array_equal(dataset.labels, levels % 2)
    part = lsmha.open_dataset("tiny_pictures", "train[30%:]", data_dir, image_size=8)
    assert np.array_equal(part.load([6, 0]), images[[9, 3]])


def test_random_access_after_preparation_here(tmp_path):
    check(tmp_path)
    dataset = lsmha.open_dataset("tiny_pictures", "test", tmp_path, image_size=8)
    assert type(dataset).__name__ == "RandomAccessDataset"


def test_prepared_in_the_other_format(tmp_path):
    pytest.importorskip("tensorflow")
    builder = tfds.builder("tiny_pictures", data_dir=tmp_path)
    builder.download_and_prepare(file_format="tfrecord")
    check(tmp_path)


class TinyScripts(TinyPictures):
    """Two configurations, as those of EMNIST; the second has five times as many classes' rows."""

    BUILDER_CONFIGS = [tfds.core.BuilderConfig(name=name) for name in ("digits", "letters")]

    def _generate_examples(self, count):
        return super()._generate_examples(
            count * (5 if self.builder_config.name == "letters" else 1)
        )


def test_configurations_are_named_as_in_tfds(tmp_path):
    for name, count in (("tiny_scripts/letters", 50), ("tiny_scripts/digits", 10)):
        for _ in range(2):  # downloaded, and found
            assert len(lsmha.open_dataset(name, "train", tmp_path, image_size=8)) == count
    with pytest.raises(ValueError, match="which is no file or folder"):
        lsmha.open_dataset("pictures/letters", data_dir=tmp_path)
    with pytest.raises(ValueError, match="Received: name='tiny_scripts/lettres'"):
        lsmha.open_dataset("tiny_scripts/lettres", data_dir=tmp_path)


def test_bad_input(tmp_path):
    with pytest.raises(ValueError, match="different sizes, so `image_size` must say"):
        lsmha.open_dataset("tiny_pictures", data_dir=tmp_path)
    with pytest.raises(ValueError, match="has the splits train, test.*Received: split='val'"):
        lsmha.open_dataset("tiny_pictures", "val", tmp_path, image_size=8)
    with pytest.raises(ValueError, match="feature 'image'.*Received: the features x"):
        lsmha.open_dataset("tiny_numbers", data_dir=tmp_path)
    with pytest.raises(ValueError, match="nearest: cifar100"):
        lsmha.open_dataset("cifar-100", data_dir=tmp_path)
    with pytest.raises(ValueError, match="nearest: mnist.*Received: name='mnits'"):
        lsmha.open_dataset("mnits", data_dir=tmp_path)


def test_what_cannot_be_downloaded_says_what_to_provide(tmp_path, monkeypatch):
    def fail(*arguments, **keywords):
        raise OSError("no network")

    monkeypatch.setattr("socket.getaddrinfo", fail)
    monkeypatch.setattr("urllib.request.getproxies", dict)
    what = (
        r"--data-dir \(`data_dir` in Python\) or LSMHA_DATA_DIR: the folder cifar-100-python or "
        r"the archive cifar-100-python.tar.gz\."
    )
    with pytest.raises(ValueError, match=f"{what} Received: OSError: no network"):
        lsmha.open_dataset("cifar100", data_dir=tmp_path)
    with pytest.raises(ValueError, match=r"--data-dir .* or LSMHA_DATA_DIR\. Received"):
        lsmha.open_dataset("mnist", data_dir=tmp_path)
    monkeypatch.setitem(sys.modules, "tensorflow_datasets", None)
    with pytest.raises(ImportError, match=what):
        lsmha.open_dataset("cifar100", data_dir=tmp_path)


def test_without_tfds(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "tensorflow_datasets", None)
    with pytest.raises(ImportError, match="nearest: digits.*pip install tensorflow-datasets"):
        lsmha.open_dataset("digit", data_dir=tmp_path)
