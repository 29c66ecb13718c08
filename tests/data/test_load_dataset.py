"""`load_dataset` with TensorFlow and without."""

import sys

import numpy as np
import pytest

import lsmha_keras as lsmha


@pytest.fixture
def npz(tmp_path):
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (300, 6, 6, 3), dtype="uint8")
    labels = rng.integers(0, 4, 300)
    np.savez(tmp_path / "data.npz", x=images, y=labels)
    return tmp_path / "data.npz", images, labels


def test_single_images_in_order(npz):
    tf = pytest.importorskip("tensorflow")
    path, images, labels = npz
    dataset = lsmha.load_dataset(path)
    assert isinstance(dataset, tf.data.Dataset) and len(dataset) == 300
    spec = dataset.element_spec
    assert [(s.dtype, s.shape.as_list()) for s in spec] == [(tf.uint8, [6, 6, 3]), (tf.int32, [])]
    assert dataset.class_names == list("0123")
    found = list(dataset.as_numpy_iterator())
    assert np.array_equal([image for image, _ in found], images)
    assert [label for _, label in found] == labels.tolist()


def test_batches(npz):
    pytest.importorskip("tensorflow")
    path, images, labels = npz
    dataset = lsmha.load_dataset(path, "train[:100]", image_size=6, batch_size=32)
    found = list(dataset.as_numpy_iterator())
    assert [len(batch) for batch, _ in found] == [32, 32, 32, 4] and len(dataset) == 4
    assert np.array_equal(np.concatenate([batch for batch, _ in found]), images[:100])


@pytest.mark.parametrize("batch_size", [None, 64])
def test_without_tensorflow(npz, monkeypatch, batch_size):
    # By its name in `sys.modules`: the package's attribute of that name is the function.
    module = sys.modules[lsmha.load_dataset.__module__]
    monkeypatch.setattr(module, "has_tensorflow", lambda: False)
    path, images, labels = npz
    dataset = lsmha.load_dataset(path, batch_size=batch_size)
    found = [dataset[index] for index in range(len(dataset))]
    assert len(found[0][0]) == (batch_size or 128) and dataset.class_names == list("0123")
    assert np.array_equal(np.concatenate([batch for batch, _ in found]), images)
    assert np.array_equal(np.concatenate([batch for _, batch in found]), labels)
    with pytest.raises(IndexError, match="Received: index="):
        dataset[len(dataset)]


@pytest.mark.parametrize("batch_size", [0, -1, 2.5])
def test_bad_batch_size(npz, batch_size):
    with pytest.raises(ValueError, match="Received: batch_size="):
        lsmha.load_dataset(npz[0], batch_size=batch_size)
