"""RandAugment's operations against Pillow's, one by one."""

import numpy as np
import pytest
from PIL import Image, ImageEnhance, ImageOps

from lsmha_keras.data import RandAugmentPerImage
from lsmha_keras.data.augmentation.rand_augment import OPERATIONS, apply_operations

pytestmark = pytest.mark.backend_free

FILL = (10, 128, 250)
AFFINE = Image.Transform.AFFINE
RESAMPLE = {"nearest": Image.Resampling.NEAREST, "bilinear": Image.Resampling.BILINEAR}
GEOMETRIC = ("Rotate", "ShearX", "ShearY", "TranslateX", "TranslateY")
COUNT = 200


def affine(image, argument, resample, matrix):
    return image.transform(image.size, AFFINE, matrix, resample, fillcolor=FILL)


def solarize_add(image, addition):
    levels = [min(255, level + addition) if level < 128 else level for level in range(256)]
    return image.point(levels * 3)


PILLOW = {
    "AutoContrast": lambda image, a, r: ImageOps.autocontrast(image),
    "Equalize": lambda image, a, r: ImageOps.equalize(image),
    "Invert": lambda image, a, r: ImageOps.invert(image),
    "Posterize": lambda image, a, r: ImageOps.posterize(image, int(a)),
    "Solarize": lambda image, a, r: ImageOps.solarize(image, int(a)),
    "SolarizeAdd": lambda image, a, r: solarize_add(image, int(a)),
    "Color": lambda image, a, r: ImageEnhance.Color(image).enhance(a),
    "Contrast": lambda image, a, r: ImageEnhance.Contrast(image).enhance(a),
    "Brightness": lambda image, a, r: ImageEnhance.Brightness(image).enhance(a),
    "Sharpness": lambda image, a, r: ImageEnhance.Sharpness(image).enhance(a),
    "Rotate": lambda image, a, r: image.rotate(a, r, fillcolor=FILL),
    "ShearX": lambda image, a, r: affine(image, a, r, (1, a, 0, 0, 1, 0)),
    "ShearY": lambda image, a, r: affine(image, a, r, (1, 0, 0, a, 1, 0)),
    "TranslateX": lambda image, a, r: affine(image, a, r, (1, 0, a * image.width, 0, 1, 0)),
    "TranslateY": lambda image, a, r: affine(image, a, r, (1, 0, 0, 0, 1, a * image.height)),
}


def pictures(height=32, width=32):
    """Smooth, noisy, dark, flat and two-level pictures."""
    rng = np.random.default_rng(7)
    y, x = np.mgrid[:height, :width]
    images = np.empty((COUNT, height, width, 3), dtype="uint8")
    for row, image in enumerate(images):
        across, down = rng.uniform(0, 0.5, (2, 3))
        waves = np.sin(across * x[..., None] + down * y[..., None])
        noise = rng.normal(0, rng.choice([0, 5, 60]), image.shape)
        image[:] = np.clip(rng.uniform(20, 200) + rng.uniform(5, 120) * waves + noise, 0, 255)
        if row % 20 == 0:
            image[..., row % 3] = 77
    images[1] = 200
    images[2] = np.where(rng.random((height, width, 1)) < 0.5, 3, 4)
    return images


def arguments(name):
    """Arguments over the whole range of magnitudes 0 .. 10."""
    rng = np.random.default_rng(11)
    _, argument, signed = OPERATIONS[name]
    level = np.concatenate([[0.0, 1.0, 1.0], rng.random(COUNT - 3)])
    signs = np.concatenate([[1.0, 1.0, -1.0], rng.choice([-1.0, 1.0], COUNT - 3)])
    return argument(level * signs if signed else level)


@pytest.mark.parametrize("size", [(32, 32), (24, 37)])
@pytest.mark.parametrize("interpolation", ["nearest", "bilinear"])
@pytest.mark.parametrize("name", list(OPERATIONS))
def test_operation_equals_pillow(name, interpolation, size):
    images, given = pictures(*size), arguments(name)
    result = images.copy()
    apply_operations(result, {name: np.arange(COUNT)}, {name: given}, FILL, interpolation)
    expected = np.stack(
        [
            PILLOW[name](Image.fromarray(image), argument, RESAMPLE[interpolation])
            for image, argument in zip(images, given.tolist(), strict=True)
        ]
    )
    difference = np.abs(result.astype(int) - expected)
    # Exact, but for bilinear interpolation, which rounds in float32 where Pillow does in float64.
    inexact = name in GEOMETRIC and interpolation == "bilinear"
    assert difference.max() <= (1 if inexact else 0)
    assert (difference > 0).mean() < 1e-4
    assert (expected != images).mean() > 0.1


def test_the_list_is_the_published_one():
    assert sorted(OPERATIONS) == sorted(PILLOW) and len(OPERATIONS) == 15


def test_operations_are_drawn_for_each_image_with_the_probability():
    # A picture on which operations leave different traces, once for each of 3,000 draws.
    image = pictures()[5]
    images = np.tile(image, (3000, 1, 1, 1))
    layer = RandAugmentPerImage(1, magnitude=9, magnitude_std=0.0, probability=0.5)
    result, _ = layer.augment(images, None, np.random.default_rng(0))
    unchanged = (result == images).all(axis=(1, 2, 3)).mean()
    assert unchanged == pytest.approx(0.5, abs=0.03)
    # 15 operations at one magnitude, 9 of them with either sign.
    kinds = {picture.tobytes() for picture in result}
    assert 20 <= len(kinds) <= 25


def test_magnitudes_are_noisy_and_signs_even():
    images = np.full((4000, 1, 1, 1), 100, dtype="uint8")
    layer = RandAugmentPerImage(
        1, magnitude=5, magnitude_std=1.0, probability=1.0, operations=["Brightness"]
    )
    result, _ = layer.augment(images, None, np.random.default_rng(0))
    change = result.ravel() / 100.0 - 1
    # The factor is 1 +- 0.09 * magnitude.
    assert (change > 0).mean() == pytest.approx(0.5, abs=0.03)
    assert np.abs(change).mean() == pytest.approx(0.45, abs=0.01)
    assert np.abs(change).std() == pytest.approx(0.09, abs=0.005)


def test_two_operations_follow_each_other():
    images = pictures()[:4]
    layer = RandAugmentPerImage(2, probability=1.0, operations=["Invert"])
    assert np.array_equal(layer.augment(images, None, np.random.default_rng(0))[0], images)


def test_grey_images_and_float_images():
    images = pictures()[:16]
    layer = RandAugmentPerImage(2, probability=1.0)
    whole, _ = layer.augment(images, None, np.random.default_rng(3))
    floats, _ = layer.augment(images.astype("float32"), None, np.random.default_rng(3))
    assert floats.dtype == np.float32 and np.array_equal(floats, whole)
    grey, _ = layer.augment(images[..., :1], None, np.random.default_rng(3))
    assert grey.shape == (16, 32, 32, 1) and grey.dtype == np.uint8
    with pytest.raises(ValueError, match=r"1 or 3 channels.*Received: shape=\(16, 32, 32, 4\)"):
        layer.augment(np.zeros((16, 32, 32, 4), "uint8"), None, np.random.default_rng(3))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"num_ops": 0}, "num_ops=0"),
        ({"magnitude": 11}, "magnitude=11"),
        ({"magnitude_std": -1}, "magnitude_std=-1"),
        ({"probability": 1.5}, "probability=1.5"),
        ({"operations": ["Rotat"]}, "nearest: Rotate"),
        ({"operations": []}, "must not be empty"),
        ({"fill": 256}, "fill=256"),
        ({"interpolation": "cubic"}, "interpolation='cubic'"),
    ],
)
def test_bad_arguments(arguments, message):
    with pytest.raises(ValueError, match=message):
        RandAugmentPerImage(**arguments)
