"""Augmentation on a device against the NumPy layers: image by image, and in distribution."""

import itertools

import keras
import numpy as np
import pytest
from keras import ops
from scipy.stats import ks_2samp

from lsmha_keras.data import AugmentationPolicy, HorizontalFlip
from lsmha_keras.data.augmentation.geometry import crop_and_enlarge, crop_padded, draw_boxes
from lsmha_keras.data.augmentation.mixing import CutMix, MixUp
from lsmha_keras.data.augmentation.rand_augment import OPERATIONS
from lsmha_keras.data.augmentation.rand_augment import apply_operations as apply_in_numpy
from lsmha_keras.data.device import geometry, mixing
from lsmha_keras.data.device.augment import apply_operations, augment
from tests.data.augmentation.test_mixing import Scripted, one_hot
from tests.data.augmentation.test_rand_augment import COUNT, FILL, arguments, pictures

GEOMETRIC = ("Rotate", "ShearX", "ShearY", "TranslateX", "TranslateY")
# Blended or stretched in another precision or order than in NumPy.
INEXACT = ("AutoContrast", "Contrast", "Brightness", "Color", "Sharpness", *GEOMETRIC)


def compiled(function):
    """Compiled on JAX, as in training; eager elsewhere."""
    if keras.backend.backend() != "jax":
        return function
    import jax

    return jax.jit(function)


def tensor(array, dtype="int32"):
    return ops.convert_to_tensor(np.asarray(array, dtype))


def result(tensor):
    return ops.convert_to_numpy(tensor)


@pytest.fixture(scope="module")
def images():
    return pictures(20, 28)


@pytest.mark.parametrize("interpolation", ["nearest", "bilinear"])
@pytest.mark.parametrize("name", list(OPERATIONS))
def test_operation_equals_numpy(name, interpolation, images):
    if interpolation == "nearest" and name not in GEOMETRIC:
        pytest.skip("colours are not interpolated")
    given, chosen = arguments(name), np.arange(COUNT) % 5 != 0
    expected = images.copy()
    rows = np.flatnonzero(chosen)
    apply_in_numpy(expected, {name: rows}, {name: given[rows]}, FILL, interpolation)

    @compiled
    def apply(images, chosen, given):
        return apply_operations(images, {name: chosen}, {name: given}, FILL, interpolation)

    found = result(apply(tensor(images), tensor(chosen, "bool"), tensor(given, "float32")))
    difference = np.abs(found - expected.astype(int))
    if name in GEOMETRIC:
        # Where a position lies on a border between pixels, float32 may fall on the other side.
        assert (difference > 1).any(axis=-1).mean() < 2e-4
    else:
        assert difference.max() <= (1 if name in INEXACT else 0)
    # AutoContrast differs where the exact level is a whole number that float64 may just miss, as at
    # the brightest level of an image.
    assert (difference > 0).mean() < (2e-2 if name == "AutoContrast" else 2e-3)
    assert (expected != images).mean() > 0.1 and not difference[~chosen].any()


def test_all_operations_at_once_pick_the_right_one(images):
    names = list(OPERATIONS)
    choice = np.arange(COUNT) % (len(names) + 1) - 1
    given = {name: arguments(name) for name in names}
    expected = images.copy()
    rows = {name: np.flatnonzero(choice == index) for index, name in enumerate(names)}
    apply_in_numpy(expected, rows, {name: given[name][rows[name]] for name in names}, 128)
    chosen = {name: tensor(choice == index, "bool") for index, name in enumerate(names)}
    given = {name: tensor(value, "float32") for name, value in given.items()}
    apply = compiled(lambda *given: apply_operations(*given, 128, "bilinear"))
    found = result(apply(tensor(images), chosen, given))
    difference = np.abs(found - expected.astype(int))
    assert (difference > 1).any(axis=-1).mean() < 2e-4 and (difference > 0).mean() < 5e-3


@pytest.mark.parametrize("channels", [1, 3])
def test_geometry_equals_numpy(images, channels):
    rng = np.random.default_rng(3)
    images = images[..., :channels]
    tops, lefts = rng.integers(0, 9, (2, COUNT))
    found = compiled(lambda *a: geometry.crop_padded(*a, 4))(*map(tensor, (images, tops, lefts)))
    assert np.array_equal(result(found), crop_padded(images, tops, lefts, 4))
    chosen = rng.random(COUNT) < 0.5
    found = result(geometry.mirror(tensor(images), tensor(chosen, "bool")))
    assert np.array_equal(found, np.where(chosen[:, None, None, None], images[:, :, ::-1], images))
    boxes = draw_boxes(rng, COUNT, *images.shape[1:3], (0.05, 1.0), (0.5, 2.0))
    found = result(compiled(geometry.crop_and_enlarge)(tensor(images), tensor(boxes)))
    difference = np.abs(found - crop_and_enlarge(images, boxes).astype(int))
    assert difference.max() <= 1 and (difference > 0).mean() < 1e-2  # levels halfway between two


def test_erasing_fills_the_box_with_the_noise(images):
    rng = np.random.default_rng(4)
    noise = rng.integers(0, 256, images.shape)
    chosen = rng.random(COUNT) < 0.5
    boxes = draw_boxes(rng, COUNT, *images.shape[1:3], (0.02, 0.3), (0.3, 3.3))
    expected = images.copy()
    for row in np.flatnonzero(chosen):
        top, left, tall, wide = boxes[row]
        box = row, slice(top, top + tall), slice(left, left + wide)
        expected[box] = noise[box]
    found = mixing.erase(*map(tensor, (images, boxes)), tensor(chosen, "bool"), tensor(noise))
    assert np.array_equal(result(found), expected)


def test_mixing_equals_numpy(images):
    rng = np.random.default_rng(5)
    labels = one_hot(np.arange(COUNT) % 7, 7)
    partners, weights = rng.permutation(COUNT), rng.beta(0.8, 0.8, COUNT)
    mixed, mixed_labels = MixUp(0.8).augment(images, labels, Scripted(partners, weights))
    found = compiled(mixing.mix_up)(
        tensor(images), tensor(labels, "float32"), tensor(partners), tensor(weights, "float32")
    )
    assert np.abs(result(found[0]) - mixed.astype(int)).max() <= 1
    np.testing.assert_allclose(result(found[1]), mixed_labels, atol=1e-6)

    height, width = images.shape[1:3]
    centres = [rng.integers(0, size, COUNT) for size in (height, width)]
    mixed, mixed_labels = CutMix(1.0).augment(images, labels, Scripted(partners, weights, centres))
    intervals = []
    for centre, size in zip(centres, (height, width), strict=True):
        length = (np.sqrt(1 - weights) * size).astype(int)
        start = centre - length // 2
        intervals.append([tensor(np.maximum(start, 0)), tensor(np.minimum(start + length, size))])
    found = mixing.cut_mix(tensor(images), tensor(labels, "float32"), tensor(partners), *intervals)
    assert np.array_equal(result(found[0]), mixed)
    np.testing.assert_allclose(result(found[1]), mixed_labels, atol=1e-6)


def seeds(seed):
    if keras.backend.backend() != "jax":
        return itertools.count(1000 * seed)
    import jax

    return iter(jax.random.split(jax.random.key(seed), 64))


def run(layers):
    return compiled(lambda images, labels, seed: augment(layers, images, labels, seeds(seed)))


@pytest.mark.parametrize(
    "table",
    [
        {"pad_crop": 4},
        {"flip": 0.3},
        {"random_resized_crop": [0.2, 0.9]},
        {"random_erasing": 0.6},
        {"rand_augment": {"magnitude": 7, "magnitude_std": 2.0, "probability": 0.7}},
        {"rand_augment": {"num_ops": 1, "operations": ["Solarize", "TranslateX"]}},
        {"mixup": 0.4},
        {"cutmix": 1.0},
    ],
    ids=lambda table: "-".join(table),
)
def test_distribution_is_that_of_numpy(table):
    """Figures of each image, and of its label, over two samples: Kolmogorov and Smirnov's test."""
    count = 2000
    rng = np.random.default_rng(6)
    ramp = np.linspace(0, 155, 12 * 16 * 3).reshape(12, 16, 3)
    images = (ramp + rng.integers(0, 100, (count, 1, 1, 1))).astype("uint8")
    labels = one_hot(np.arange(count) % 5, 5)
    layers = AugmentationPolicy.from_config(table, (12, 16, 3), 5).layers
    expected = images, labels
    for layer in layers:
        expected = layer.augment(*expected, rng)
    found = run(layers)(tensor(images, "uint8"), tensor(labels, "float32"), 1)
    for name, figure in FIGURES.items():
        first, second = figure(*expected), figure(*map(result, found))
        assert ks_2samp(first, second).pvalue > 1e-4, name
    assert (result(found[0]) != images).any()


FIGURES = {
    "mean": lambda images, labels: images.mean(axis=(1, 2, 3)),
    "spread": lambda images, labels: images.std(axis=(1, 2, 3)),
    "left against right": lambda images, labels: (
        images[:, :, :8].mean(axis=(1, 2, 3)) - images[:, :, 8:].mean(axis=(1, 2, 3))
    ),
    "top against bottom": lambda images, labels: (
        images[:, :6].mean(axis=(1, 2, 3)) - images[:, 6:].mean(axis=(1, 2, 3))
    ),
    "share of the label": lambda images, labels: labels.max(axis=1),
}


def test_one_of_chooses_for_the_whole_batch():
    images = np.zeros((8, 4, 4, 3), "uint8")
    images[::2] = 200
    labels = one_hot(np.arange(8) % 2, 2)
    layers = AugmentationPolicy.from_config({"mixup": 1.0, "cutmix": 1.0}, (4, 4, 3), 2).layers
    kinds = set()
    apply = run(layers)
    for seed in range(12):
        found, _ = apply(tensor(images), tensor(labels, "float32"), seed)
        # CutMix leaves no level between the two.
        kinds.add(bool(((result(found) > 0) & (result(found) < 200)).any()))
    assert kinds == {True, False}


def test_another_packages_layer_is_refused():
    layers = [HorizontalFlip(), keras.layers.Rescaling(1.0)]
    with pytest.raises(ValueError, match='placement = "host".*Received: Rescaling'):
        augment(layers, tensor(np.zeros((2, 4, 4, 3))), tensor(np.eye(2), "float32"), seeds(0))
