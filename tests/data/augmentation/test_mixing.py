"""MixUp, CutMix and the choice between them."""

import numpy as np
import pytest

from lsmha_keras.data import CutMix, HorizontalFlip, MixUp, OneOf

pytestmark = pytest.mark.backend_free


class Scripted:
    """A generator whose draws are known."""

    def __init__(self, partners, weights, centres=()):
        self.partners, self.weights, self.centres = partners, weights, list(centres)

    def permutation(self, count):
        return np.array(self.partners)

    def beta(self, a, b, count):
        return np.array(self.weights)

    def integers(self, low, high, count):
        return np.array(self.centres.pop(0))


def one_hot(labels, classes):
    return np.eye(classes, dtype="float32")[labels]


def test_mixup_blends_images_and_labels():
    images = np.array([10, 20, 251], dtype="uint8").reshape(3, 1, 1, 1)
    rng = Scripted([1, 2, 0], [0.25, 1.0, 0.5])
    mixed, labels = MixUp(1.0).augment(images, one_hot([0, 1, 2], 3), rng)
    # 10 / 4 + 20 * 3 / 4 = 17.5, rounded up; 20; (251 + 10) / 2 = 130.5.
    assert mixed.ravel().tolist() == [18, 20, 131]
    assert labels.tolist() == [[0.25, 0.75, 0], [0, 1, 0], [0.5, 0, 0.5]]
    rng = Scripted([1, 2, 0], [0.25, 1.0, 0.5])
    mixed, _ = MixUp(1.0).augment(images.astype("float32"), one_hot([0, 1, 2], 3), rng)
    assert mixed.ravel().tolist() == [17.5, 20.0, 130.5]


@pytest.mark.parametrize("layer", [MixUp(0.4, seed=1), CutMix(1.0, seed=1)])
def test_integer_labels_mix_as_floats_do(layer):
    import keras

    images = np.random.default_rng(0).integers(0, 256, (8, 8, 8, 3), dtype="uint8")
    mixed = []
    for dtype in ("float32", "int32", "bool"):
        copy = type(layer).from_config(layer.get_config())
        batch = {"images": images, "labels": one_hot(np.arange(8) % 4, 4).astype(dtype)}
        mixed.append(keras.ops.convert_to_numpy(copy(batch)["labels"]))
    assert ((mixed[0] > 0) & (mixed[0] < 1)).any()
    for labels in mixed[1:]:
        np.testing.assert_array_equal(labels, mixed[0])
    with pytest.raises(ValueError, match=r"must be one-hot.*shape=\(8,\)"):
        layer({"images": images, "labels": np.arange(8)})


def test_cutmix_pastes_boxes_and_mixes_by_area():
    images = np.stack([np.full((8, 8, 1), level, dtype="uint8") for level in (1, 2)])
    # Areas of 1/4 and 1: sides of 4 and 8 pixels, about centres (row, column) (4, 4) and (0, 2).
    rng = Scripted([1, 0], [0.75, 0.0], centres=[[4, 0], [4, 2]])
    mixed, labels = CutMix(1.0).augment(images, one_hot([0, 1], 2), rng)
    expected = images.copy()
    expected[0, 2:6, 2:6] = 2
    expected[1, 0:4, 0:6] = 1  # rows -4 .. 4 and columns -2 .. 6, cut at the border
    assert np.array_equal(mixed, expected)
    assert labels.tolist() == [[0.75, 0.25], [24 / 64, 40 / 64]]


@pytest.mark.parametrize("layer", [MixUp(0.4), CutMix(1.0)])
def test_labels_tell_what_the_image_holds(layer):
    # Image k holds level k alone, so that its mean, or its pixels, reveal the true mixture.
    count = 64
    images = np.tile(np.arange(count, dtype="float32")[:, None, None, None], (1, 16, 16, 3))
    rng = np.random.default_rng(0)
    mixed, labels = layer.augment(images, one_hot(np.arange(count), count), rng)
    np.testing.assert_allclose(labels.sum(axis=1), 1, atol=1e-6)
    np.testing.assert_allclose(mixed.mean(axis=(1, 2, 3)), labels @ np.arange(count), rtol=1e-4)
    assert labels.dtype == np.float32
    assert 0.5 < (labels.max(axis=1) < 0.999).mean()


def test_one_of_gives_each_batch_to_one_layer_with_even_odds():
    images = np.arange(16, dtype="uint8").reshape(4, 2, 2, 1)
    labels = one_hot(np.arange(4), 4)
    layer = OneOf([HorizontalFlip(1.0), HorizontalFlip(0.0)])
    rng = np.random.default_rng(0)
    flips = 0
    for _ in range(400):
        result, same = layer.augment(images, labels, rng)
        whole = [np.array_equal(result, picture) for picture in (images[:, :, ::-1], images)]
        assert sum(whole) == 1 and same is labels
        flips += whole[0]
    assert 160 < flips < 240
    assert not layer.mixes_labels and OneOf([MixUp(), CutMix()]).mixes_labels


@pytest.mark.parametrize("layer", [MixUp, CutMix])
@pytest.mark.parametrize("alpha", [0, -1.0, "1"])
def test_bad_alpha(layer, alpha):
    with pytest.raises(ValueError, match="must be a positive number. Received: (alpha|factor)="):
        layer(alpha)


@pytest.mark.parametrize("layers", [[], [lambda images: images]])
def test_bad_choice(layers):
    with pytest.raises(ValueError, match="Received: layers="):
        OneOf(layers)
