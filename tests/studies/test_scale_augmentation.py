import pytest

from lsmha_keras.data import AugmentationPolicy
from lsmha_keras.studies.scale_augmentation import scale_augmentation

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


def test_true_stands_for_what_the_recipe_means_by_it():
    table = {"random_resized_crop": True, "rand_augment": True, "random_erasing": True}
    half = scale_augmentation(table, 0.5)
    crop, rand_augment, erasing = AugmentationPolicy.from_config(table, (32, 32, 3), 10).layers
    assert half["random_resized_crop"] == [1 - (1 - crop.area[0]) / 2, crop.area[1]]
    assert half["rand_augment"] == {"magnitude": rand_augment.magnitude / 2}
    assert half["random_erasing"] == erasing.probability / 2


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
