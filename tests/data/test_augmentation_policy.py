"""From a recipe's table to augmented batches, and weakened tables."""

import keras
import numpy as np
import pytest

from lsmha_keras.data import AugmentationPolicy, HorizontalFlip, OneOf
from lsmha_keras.data.augmentation_policy import scale_augmentation

SHAPE = (32, 32, 3)


def from_table(**table):
    return AugmentationPolicy.from_config(table, SHAPE, 100)


def test_full_table_in_the_order_of_application():
    policy = from_table(
        cutmix=1.0,
        mixup=0.8,
        random_erasing=0.25,
        rand_augment={"num_ops": 1, "magnitude": 7, "magnitude_std": 0.1, "probability": 0.9},
        flip=True,
        pad_crop=4,
        random_resized_crop=[0.8, 1.0],
    )
    names = [type(layer).__name__ for layer in policy.layers]
    expected = [
        "ResizedCrop",
        "PadCrop",
        "HorizontalFlip",
        "RandAugmentPerImage",
        "RandomErasing",
        "OneOf",
    ]
    assert names == expected
    crop, pad, flip, rand, erase, mix = policy.layers
    assert crop.area == [0.8, 1.0] and pad.padding == 4 and flip.probability == 0.5
    assert (rand.num_ops, rand.magnitude, rand.magnitude_std, rand.probability) == (1, 7, 0.1, 0.9)
    assert erase.factor == 0.25 and [mix.layers[0].alpha, mix.layers[1].factor] == [0.8, 1.0]
    assert policy.mixes_labels


def test_off_and_single_entries():
    assert from_table(pad_crop=0, flip=False, random_erasing=0.0, mixup=0.0).layers == []
    assert from_table(flip=0.25).layers[0].probability == 0.25
    [mix] = from_table(mixup=0.2).layers
    assert not isinstance(mix, OneOf) and mix.alpha == 0.2
    assert not from_table(pad_crop=4).mixes_labels


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ({"pad_corp": 4}, "nearest: pad_crop.*Received: pad_corp=4"),
        ({"rand_augment": {"magnitud": 9}}, "nearest: magnitude.*Received: magnitud=9"),
        ({"rand_augment": 9}, "Received: rand_augment=9"),
        ({"pad_crop": 32}, "smaller than the image's sides, 32x32. Received: pad_crop=32"),
        ({"pad_crop": True}, "padding=True"),
        ({"flip": 2}, "probability=2"),
        ({"mixup": -1}, "alpha=-1"),
        ({"random_resized_crop": [1.0, 0.8]}, "smaller one first"),
    ],
)
def test_bad_tables(table, message):
    with pytest.raises(ValueError, match=message):
        from_table(**table)


def test_mixing_needs_two_classes():
    with pytest.raises(ValueError, match="at least 2 classes. Received: num_classes=1"):
        AugmentationPolicy.from_config({"mixup": 1.0}, SHAPE, 1)


def test_layers_must_be_callable():
    with pytest.raises(ValueError, match="Received: 'flip'"):
        AugmentationPolicy(["flip"])


def test_runs_and_keys():
    other = keras.layers.Rescaling(1.0)
    layers = [HorizontalFlip(), HorizontalFlip(), other, HorizontalFlip()]
    policy = AugmentationPolicy(layers, seed=3)
    runs = policy.runs()
    assert [(own, [place for place, _ in run]) for own, run in runs] == [
        (True, [0, 1]),
        (False, [2]),
        (True, [3]),
    ]
    images = np.random.default_rng(0).integers(0, 256, (64, 4, 4, 1), dtype="uint8")
    results = [policy.augment(runs[0][1], images, None, key)[0] for key in ([1, 2], [1, 2], [2, 1])]
    assert np.array_equal(results[0], results[1])
    assert not np.array_equal(results[0], results[2])


pytestmark = pytest.mark.backend_free

TABLE = {
    "random_resized_crop": [0.2, 1.0],
    "pad_crop": 4,
    "flip": True,
    "rand_augment": {"magnitude": 8, "num_ops": 2},
    "random_erasing": 0.2,
    "mixup": 0.8,
    "cutmix": 1.0,
}


def test_half():
    assert scale_augmentation(TABLE, 0.5) == {
        "random_resized_crop": [0.6, 1.0],
        "pad_crop": 2,
        "flip": True,
        "rand_augment": {"magnitude": 4.0, "num_ops": 2},
        "random_erasing": 0.1,
        "mixup": 0.4,
        "cutmix": 0.5,
    }


def test_true_means_the_default_value():
    table = {"random_resized_crop": True, "rand_augment": True, "random_erasing": True}
    half = scale_augmentation(table, 0.5)
    crop, rand_augment, erasing = AugmentationPolicy.from_config(table, (32, 32, 3), 10).layers
    assert half["random_resized_crop"] == [1 - (1 - crop.area[0]) / 2, crop.area[1]]
    assert half["rand_augment"] == {"magnitude": rand_augment.magnitude / 2}
    assert half["random_erasing"] == erasing.factor / 2


def test_ends():
    assert scale_augmentation(TABLE, 1.0) == TABLE
    assert scale_augmentation(TABLE, 0) == {}
    assert scale_augmentation({"pad_crop": 4}, 0.1) == {}  # less than half a pixel


@pytest.mark.parametrize("strength", [0.3, 0.7, 1.0])
def test_what_comes_out_is_an_augmentation(strength):
    table = scale_augmentation({**TABLE, "rand_augment": True, "random_erasing": True}, strength)
    assert AugmentationPolicy.from_config(table, (32, 32, 3), 10).layers


@pytest.mark.parametrize("strength", [-0.1, 1.1, True, float("nan")])
def test_out_of_range(strength):
    with pytest.raises(ValueError, match="0 .. 1"):
        scale_augmentation(TABLE, strength)
