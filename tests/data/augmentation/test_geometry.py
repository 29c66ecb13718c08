"""Pad-crop, flip, resized crop and erasing against plain loops and Pillow."""

import numpy as np
import pytest
from PIL import Image

from lsmha_keras.data import HorizontalFlip, PadCrop, RandomErasing, ResizedCrop
from lsmha_keras.data.augmentation.geometry import crop_and_enlarge, crop_padded, draw_boxes

pytestmark = pytest.mark.backend_free


@pytest.fixture
def images():
    return np.random.default_rng(0).integers(1, 256, (64, 20, 28, 3), dtype="uint8")


def test_crop_padded_equals_a_loop(images):
    rng = np.random.default_rng(1)
    tops, lefts = rng.integers(0, 9, (2, len(images)))
    padded = np.pad(images, ((0, 0), (4, 4), (4, 4), (0, 0)))
    expected = [
        picture[top : top + 20, left : left + 28]
        for picture, top, left in zip(padded, tops, lefts, strict=True)
    ]
    assert np.array_equal(crop_padded(images, tops, lefts, 4), expected)


def test_pad_crop_reaches_every_place_equally_often():
    images = np.zeros((8100, 3, 3, 1), dtype="uint8")
    images[:, 1, 1] = 1
    shifted, _ = PadCrop(1).augment(images, None, np.random.default_rng(0))
    places = np.unique(np.nonzero(shifted.reshape(8100, 9))[1], return_counts=True)
    assert places[0].tolist() == list(range(9))
    assert np.abs(places[1] - 900).max() < 120  # four standard deviations


def test_pad_crop_of_nothing_is_the_identity(images):
    assert np.array_equal(PadCrop(0).augment(images, None, np.random.default_rng(0))[0], images)


def test_flip_mirrors_some_images_whole(images):
    flipped, _ = HorizontalFlip(0.5).augment(images, None, np.random.default_rng(0))
    same = (flipped == images).all(axis=(1, 2, 3))
    mirrored = (flipped == images[:, :, ::-1]).all(axis=(1, 2, 3))
    assert np.array_equal(same, ~mirrored)
    assert 16 < mirrored.sum() < 48


def test_resized_crop_equals_pillow(images):
    boxes = draw_boxes(np.random.default_rng(2), 64, 20, 28, (0.08, 1.0), (0.75, 4 / 3))
    result = crop_and_enlarge(images, boxes)
    for image, new, (top, left, tall, wide) in zip(images, result, boxes.tolist(), strict=True):
        crop = Image.fromarray(image).crop((left, top, left + wide, top + tall))
        expected = np.asarray(crop.resize((28, 20), Image.Resampling.BILINEAR))
        # Pillow rounds between the two directions.
        assert np.abs(new.astype(int) - expected).max() <= 1
    whole = np.tile([0, 0, 20, 28], (64, 1))
    assert np.array_equal(crop_and_enlarge(images, whole), images)


def test_boxes_have_the_areas_and_aspect_ratios_asked_for():
    boxes = draw_boxes(np.random.default_rng(0), 5000, 200, 200, (0.25, 0.5), (0.5, 2.0))
    top, left, tall, wide = boxes.T
    assert top.min() >= 0 and left.min() >= 0
    assert (top + tall).max() <= 200 and (left + wide).max() <= 200
    area, ratio = tall * wide / 200**2, wide / tall
    assert 0.245 < area.min() and area.max() < 0.505
    assert area.mean() == pytest.approx(0.375, abs=0.005)
    assert 0.49 < ratio.min() and ratio.max() < 2.05
    assert np.log(ratio).mean() == pytest.approx(0.0, abs=0.02)


def test_boxes_that_cannot_fit_are_cut():
    boxes = draw_boxes(np.random.default_rng(0), 50, 4, 400, (1.0, 1.0), (0.75, 4 / 3))
    assert (boxes[:, 2] <= 4).all() and (boxes[:, 3] <= 400).all() and boxes.min() >= 0


def test_erasing_fills_one_box_of_some_images_with_noise():
    images = np.full((2000, 32, 32, 3), 128, dtype="uint8")
    layer = RandomErasing(0.25, scale=(0.1, 0.3), aspect_ratio=(0.5, 2.0))
    erased, _ = layer.augment(images, None, np.random.default_rng(0))
    changed = (erased != 128).any(axis=-1)
    touched = changed.any(axis=(1, 2))
    assert touched.mean() == pytest.approx(0.25, abs=0.03)
    share = changed[touched].mean(axis=(1, 2))
    assert 0.09 < share.min() and share.max() < 0.31
    for mask in changed[touched][:50]:
        rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
        assert mask.sum() == len(rows) * len(columns)  # a full rectangle
    noise = erased[changed]
    assert noise.mean() == pytest.approx(127.5, abs=1) and noise.min() == 0 and noise.max() == 255


@pytest.mark.parametrize(
    ("layer", "arguments", "message"),
    [
        (PadCrop, {"padding": -1}, "padding=-1"),
        (PadCrop, {"padding": 1.5}, "padding=1.5"),
        (HorizontalFlip, {"probability": -0.1}, "probability=-0.1"),
        (HorizontalFlip, {"probability": "half"}, "probability='half'"),
        (ResizedCrop, {"area": (0.8, 1.2)}, "at most 1. Received: area"),
        (ResizedCrop, {"area": 0.8}, "area=0.8"),
        (ResizedCrop, {"aspect_ratio": (2, 1)}, "the smaller one first"),
        (RandomErasing, {"factor": 2}, "factor=2"),
        (RandomErasing, {"scale": (0, 0.5)}, r"scale=\(0, 0.5\)"),
    ],
)
def test_bad_arguments(layer, arguments, message):
    with pytest.raises(ValueError, match=message):
        layer(**arguments)
