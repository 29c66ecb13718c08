"""Passes over labelled images: in order, shuffled, sampled."""

import numpy as np
import pytest

from lsmha_keras.data.labelled import ImageBatches

IMAGES = np.arange(10, dtype="uint8")[:, None, None, None] * np.ones((1, 2, 2, 1), "uint8")
DATA = (IMAGES, np.arange(10))


def seen(batches, shuffle=None):
    found = list(batches.epoch(shuffle))
    for images, labels in found:
        assert images[:, 0, 0, 0].tolist() == labels.tolist()
    return [labels.tolist() for _, labels in found]


def test_order_is_kept():
    batches = ImageBatches(DATA, 4)
    assert seen(batches) == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9]] and len(batches) == 3


def test_shuffled_epochs_differ_and_come_again():
    batches = ImageBatches(DATA, 4, seed=1)
    first, second = seen(batches, 0), seen(batches, 1)
    assert first == seen(batches, 0) != second
    for epoch in (first, second):
        assert [len(batch) for batch in epoch] == [4, 4, 4]
        assert set(sum(epoch, [])) == set(range(10))
    assert seen(ImageBatches(DATA, 4, seed=2), 0) != first
    assert sorted(sum(seen(ImageBatches(DATA, 16), 0), [])) == list(range(10))


def test_fixed_choice_of_images():
    batches = ImageBatches(DATA, 2, max_images=5, seed=3)
    chosen = sum(seen(batches), [])
    assert len(batches) == 3 and len(set(chosen)) == 5 and chosen == sorted(chosen)
    assert chosen != list(range(5)) and set(sum(seen(batches, 7), [])) == set(chosen)


def test_streams_end_after_as_many():
    tf = pytest.importorskip("tensorflow")
    stream = tf.data.Dataset.from_tensor_slices(DATA).batch(4)
    assert seen(ImageBatches(stream, 99, max_images=6)) == [[0, 1, 2, 3], [4, 5]]
    assert seen(ImageBatches(stream, 99), shuffle=0) == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9]]


@pytest.mark.parametrize("batched", [True, False])
def test_streams_of_texts_series_and_one_hot_images(batched):
    tf = pytest.importorskip("tensorflow")
    kinds = {
        "texts": (np.array(["a", "b b", "c"]), np.arange(3)),
        "series": (np.arange(24, dtype="float32").reshape(3, 4, 2), np.arange(3)),
        "ids": (np.arange(12, dtype="int32").reshape(3, 4), np.arange(3)),
        "images": (IMAGES[:3].astype("float32"), np.eye(5)[:3]),
    }
    for name, (values, labels) in kinds.items():
        stream = tf.data.Dataset.from_tensor_slices((values, labels))
        found = list(ImageBatches(stream.batch(2) if batched else stream, 2).epoch())
        assert [len(batch) for batch, _ in found] == [2, 1], name
        assert np.concatenate([batch for batch, _ in found]).shape == values.shape, name
        np.testing.assert_array_equal(np.concatenate([own for _, own in found]), labels)


def test_names():
    batches = ImageBatches("digits", 100, split="test[:150]")
    assert len(batches.class_names) == 10 and [len(b) for b in seen_labels(batches)] == [100, 50]


def seen_labels(batches):
    return [labels for _, labels in batches.epoch()]
