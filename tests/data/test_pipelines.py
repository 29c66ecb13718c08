"""Pipelines with and without TensorFlow: order, reproducibility, resuming, foreign layers."""

import sys

import keras
import numpy as np
import pytest

import lsmha_keras as lsmha
from lsmha_keras.data import AugmentationPolicy, HorizontalFlip, PadCrop, epoch_batches
from lsmha_keras.data.datasets import ArrayDataset


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


TABLE = {
    "random_resized_crop": [0.6, 1.0],
    "pad_crop": 2,
    "flip": True,
    "rand_augment": {"num_ops": 2, "magnitude": 9},
    "random_erasing": 0.5,
    "mixup": 0.8,
    "cutmix": 1.0,
}
COUNT, SHAPE, CLASSES = 70, (12, 12, 3), 5


def hide_tensorflow(monkeypatch):
    # By its name in `sys.modules`: the package's attribute of that name is the function.
    module = sys.modules["lsmha_keras.data.pipelines"]
    monkeypatch.setattr(module, "has_tensorflow", lambda: False)


@pytest.fixture
def source():
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (COUNT, *SHAPE), dtype="uint8")
    images[:, 0, 0, 0] = np.arange(COUNT)  # tells which image it is
    return ArrayDataset(images, rng.integers(0, CLASSES, COUNT), range(CLASSES))


@pytest.fixture(params=["tf.data", "PyDataset"])
def pipeline(request, monkeypatch):
    """Both kinds of pipeline."""
    if request.param == "tf.data":
        pytest.importorskip("tensorflow")
    else:
        hide_tensorflow(monkeypatch)
    return request.param


def policy(table=TABLE, seed=0):
    return AugmentationPolicy.from_config(table, SHAPE, CLASSES, seed=seed)


def collect(batches):
    return [tuple(map(np.array, batch)) for batch in batches]


def equal(first, second):
    return len(first) == len(second) and all(
        np.array_equal(a, b)
        for one, two in zip(first, second, strict=True)
        for a, b in zip(one, two, strict=True)
    )


def test_each_epoch_holds_every_image_once_in_an_order_of_its_own(source, pipeline):
    batches, steps = epoch_batches(source, 16, epochs=3, seed=4)
    found = collect(batches)
    assert steps == 5 and len(batches) == len(found) == 15
    assert [len(labels) for _, labels in found] == [16, 16, 16, 16, 6] * 3
    orders = []
    for epoch in range(3):
        images, labels = (
            np.concatenate(parts) for parts in zip(*found[5 * epoch : 5 * epoch + 5], strict=True)
        )
        order = images[:, 0, 0, 0]
        assert sorted(order) == list(range(COUNT))
        assert np.array_equal(images, source.load(order))
        assert np.array_equal(labels, source.labels[order]) and labels.dtype == np.int32
        orders.append(tuple(order))
    assert len(set(orders)) == 3
    assert batches.class_names == source.class_names


def test_order_without_shuffling_one_hot_and_dropped_remainder(source, pipeline):
    batches, steps = epoch_batches(source, 16, one_hot=True, shuffle=False, drop_remainder=True)
    found = collect(batches)
    assert steps == len(found) == 4
    images, labels = (np.concatenate(parts) for parts in zip(*found, strict=True))
    assert np.array_equal(images, source.load(range(64)))
    assert np.array_equal(labels, np.eye(CLASSES, dtype="float32")[source.labels[:64]])
    assert labels.dtype == np.float32
    if pipeline == "tf.data":
        assert [s.shape.as_list() for s in batches.element_spec] == [[16, *SHAPE], [16, CLASSES]]


def test_a_resumed_run_sees_the_same_batches(source, pipeline):
    whole = collect(epoch_batches(source, 16, policy(), seed=1, epochs=4)[0])
    resumed = collect(epoch_batches(source, 16, policy(), seed=1, first_epoch=2, epochs=4)[0])
    assert equal(whole[10:], resumed)
    again = collect(epoch_batches(source, 16, policy(), seed=1, epochs=4)[0])
    assert equal(whole, again)
    assert not equal(whole[:5], whole[5:10])
    for other in (
        epoch_batches(source, 16, policy(), seed=2, epochs=4)[0],
        epoch_batches(source, 16, policy(seed=1), seed=1, epochs=4)[0],
    ):
        assert not equal(whole, collect(other))
    images, labels = whole[0]
    assert images.dtype == np.uint8 and labels.shape == (16, CLASSES)
    np.testing.assert_allclose(labels.sum(axis=1), 1, atol=1e-6)


def test_batches_do_not_depend_on_tensorflow(source, monkeypatch):
    pytest.importorskip("tensorflow")
    with_tensorflow = collect(epoch_batches(source, 16, policy(), epochs=2)[0])
    hide_tensorflow(monkeypatch)
    assert equal(with_tensorflow, collect(epoch_batches(source, 16, policy(), epochs=2)[0]))


def linear_model():
    keras.utils.set_random_seed(0)
    layers = [keras.layers.Rescaling(1 / 255), keras.layers.Flatten(), keras.layers.Dense(CLASSES)]
    model = keras.Sequential([keras.Input(SHAPE), *layers])
    loss = keras.losses.CategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.SGD(0.01), loss)
    return model


def test_fit_takes_the_batches_in_order(source, pipeline):
    model, by_hand = linear_model(), linear_model()
    batches, steps = epoch_batches(source, 16, policy(), epochs=3)
    model.fit(batches, steps_per_epoch=steps, epochs=3, shuffle=False, verbose=0)
    # The order matters: the same batches, one by one.
    for images, labels in collect(epoch_batches(source, 16, policy(), epochs=3)[0]):
        by_hand.train_on_batch(images, labels)
    resumed = linear_model()
    resumed.set_weights(linear_model().get_weights())
    batches, _ = epoch_batches(source, 16, policy(), epochs=2)
    resumed.fit(batches, steps_per_epoch=steps, epochs=2, shuffle=False, verbose=0)
    batches, _ = epoch_batches(source, 16, policy(), first_epoch=2, epochs=3)
    resumed.fit(batches, steps_per_epoch=steps, initial_epoch=2, epochs=3, shuffle=False, verbose=0)
    for other in (by_hand, resumed):
        for weight, expected in zip(model.get_weights(), other.get_weights(), strict=True):
            np.testing.assert_allclose(weight, expected, rtol=1e-4, atol=1e-6)
    assert not np.allclose(model.get_weights()[0], linear_model().get_weights()[0], atol=1e-4)


def test_layers_of_keras_in_the_slot(source, pipeline):
    def batches():
        layers = [
            PadCrop(2),
            keras.layers.RandomBrightness(0.3, value_range=(0, 255), seed=5),
            HorizontalFlip(1.0),
        ]
        return collect(epoch_batches(source, 16, AugmentationPolicy(layers), shuffle=False)[0])

    found = batches()
    assert equal(found, batches())  # one after the other, so they repeat themselves
    plain = AugmentationPolicy([PadCrop(2), HorizontalFlip(0.0), HorizontalFlip(1.0)])
    for (images, _), (expected, _) in zip(
        found, collect(epoch_batches(source, 16, plain, shuffle=False)[0]), strict=True
    ):
        assert images.shape == expected.shape and images.dtype == np.float32
        # Brightness adds one number to each image where it is not cut off.
        inner = (images > 0) & (images < 255)
        for image, before, mask in zip(images, expected.astype("float32"), inner, strict=True):
            assert np.ptp((image - before)[mask]) < 1e-3


def test_mixing_layers_of_keras_in_the_slot(source, pipeline):
    layers = AugmentationPolicy([keras.layers.MixUp(alpha=0.4, seed=1)])
    assert layers.mixes_labels
    whole = source.load(range(COUNT)).astype("float32")
    lows, highs = whole.min(axis=0), whole.max(axis=0)
    [(images, labels)] = collect(epoch_batches(source, COUNT, layers, shuffle=False)[0])
    assert labels.shape == (COUNT, CLASSES) and ((labels > 0) & (labels < 1)).any()
    np.testing.assert_allclose(labels.sum(axis=1), 1, atol=1e-5)
    assert (images >= lows - 1e-3).all() and (images <= highs + 1e-3).all()


def test_functions_in_the_slot(source, pipeline):
    layers = AugmentationPolicy([lambda images: images[:, ::-1], keras.layers.Rescaling(2.0)])
    [(images, _)] = collect(epoch_batches(source, COUNT, layers, shuffle=False)[0])
    expected = source.load(range(COUNT))[:, ::-1].astype("float32") * 2
    assert np.array_equal(images, expected)


@pytest.mark.parametrize("name", ["RandAugment", "RandomShear", "GridMask", "MixUp", "CutMix"])
def test_layers_of_keras_cv_in_the_slot(source, name):
    pytest.importorskip("tensorflow")
    keras_cv = pytest.importorskip("keras_cv")
    arguments = {
        "RandAugment": {"value_range": (0, 255)},
        "RandomShear": {"x_factor": 0.3},
    }
    layer = getattr(keras_cv.layers, name)(**arguments.get(name, {}))
    batches, _ = epoch_batches(source, COUNT, AugmentationPolicy([layer]), shuffle=False)
    [(images, labels)] = collect(batches)
    assert images.shape == (COUNT, *SHAPE) and 0 <= images.min() and images.max() <= 255
    assert not np.array_equal(images, source.load(range(COUNT)))
    assert (labels.ndim == 2) == (name in ("MixUp", "CutMix"))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"batch_size": 0}, "batch_size=0"),
        ({"batch_size": 1.5}, "batch_size=1.5"),
        ({"batch_size": 71, "drop_remainder": True}, "the 70 images.*batch_size=71"),
        ({"first_epoch": 2, "epochs": 2}, "first_epoch=2, epochs=2"),
        ({"first_epoch": -1}, "first_epoch=-1"),
    ],
)
def test_bad_arguments(source, pipeline, arguments, message):
    with pytest.raises(ValueError, match=message):
        epoch_batches(source, **{"batch_size": 16, **arguments})


def test_sequence_outside_its_range(source, monkeypatch):
    hide_tensorflow(monkeypatch)
    batches, _ = epoch_batches(source, 16, epochs=2)
    assert np.array_equal(batches[7][0], list(batches)[7][0])  # in any order
    with pytest.raises(IndexError, match="10 batches, for epochs 0 .. 1. Received: index=10"):
        batches[10]


def test_a_failure_while_reading_reaches_the_user(tmp_path, pipeline):
    from PIL import Image

    from lsmha_keras.data import open_dataset

    (tmp_path / "a").mkdir()
    Image.new("RGB", (8, 8)).save(tmp_path / "a" / "0.png")
    (tmp_path / "a" / "1.png").write_bytes(b"not an image")
    source = open_dataset(tmp_path)
    with pytest.raises(Exception, match="1.png is not a sound image file"):
        collect(epoch_batches(source, 2)[0])
