"""A classifier takes every kind of data that `keras.Model.fit` takes, with the same result."""

import gc
import weakref

import keras
import numpy as np
import pytest

import lsmha_keras as lsmha
from tests.checks import random_images
from tests.models.test_cct_image_classifier import Images, small_classifier

STILL = {"attention_dropout": 0.0, "stochastic_depth_rate": 0.0}
KINDS = ["arrays", "PyDataset", "generator", "DataLoader", "tf.data"]
GRAIN = ["grain.MapDataset", "grain.IterDataset", "grain.DataLoader"]


def data_of(kind, images, labels):
    """Returns positional arguments of `fit`, in batches of 8 for all kinds but arrays."""
    if kind == "arrays":
        return images, labels
    if kind == "PyDataset":
        return (Images(images, labels),)
    if kind == "generator":
        rows = range(0, len(images), 8)
        return ((images[i : i + 8], labels[i : i + 8]) for i in rows)
    if kind == "DataLoader":
        data = pytest.importorskip("torch").utils.data
        pairs = list(zip(images, labels, strict=True))
        return (data.DataLoader(pairs, batch_size=8),)
    if kind in GRAIN:
        return (grain_data(kind, list(zip(images, labels, strict=True))),)
    tf = pytest.importorskip("tensorflow")
    return (tf.data.Dataset.from_tensor_slices((images, labels)).batch(8),)


def grain_data(kind, rows):
    grain = pytest.importorskip("grain", reason="Grain is not among this package's extras")
    if kind == "grain.DataLoader":
        order = grain.samplers.SequentialSampler(len(rows), grain.sharding.NoSharding())
        return grain.DataLoader(
            data_source=rows, sampler=order, operations=[grain.transforms.Batch(8)]
        )
    data = grain.MapDataset.source(rows)
    return (data.to_iter_dataset() if kind == "grain.IterDataset" else data).batch(8)


def as_arguments(kind, images, labels):
    data = data_of(kind, images, labels)
    return data if isinstance(data, tuple) else (data,)


@pytest.fixture(scope="module")
def compiled():
    """A model that the tests share, so that it is compiled once, and its weights."""
    model = small_classifier(**STILL)
    model.compile(keras.optimizers.SGD(0.1), model.loss)
    return model, model.get_weights()


@pytest.mark.parametrize("kind", [*KINDS[2:], *GRAIN])
def test_every_kind_of_data_gives_what_arrays_give(kind, compiled):
    images, labels = random_images(20, 16, 16, 3), np.arange(20) % 5  # The last batch is smaller.
    model, weights = compiled
    model.set_weights(weights)
    model.optimizer.learning_rate = 0.1
    # Batches of one size: everything is compiled once.
    options = {"batch_size": 8, "verbose": 0}
    logits = model.predict(images, **options)
    figures = model.evaluate(images, labels, **options)
    x = as_arguments(kind, images, labels)[0]
    np.testing.assert_allclose(model.predict(x, verbose=0), logits, atol=1e-5)
    x = as_arguments(kind, images, labels)[0]
    np.testing.assert_allclose(model.evaluate(x, verbose=0), figures, rtol=1e-5)
    losses = []
    for fitted in ("arrays", kind):
        model.set_weights(weights)
        data = as_arguments(fitted, images, labels)
        batch = {"batch_size": 8} if fitted == "arrays" else {}
        epochs = 1 if kind == "generator" else 2
        history = model.fit(*data, shuffle=False, epochs=epochs, verbose=0, **batch).history
        losses.append([*history["loss"], model.evaluate(images, labels, **options)[0]])
    np.testing.assert_allclose(losses[1], losses[0], rtol=1e-4)


@pytest.mark.parametrize("kind", [*KINDS, *GRAIN])
def test_validation_data_may_be_of_another_kind(kind):
    images, labels = random_images(16, 16, 16, 3), np.arange(16) % 5
    model = small_classifier(**STILL)
    for train, validation in ((kind, "arrays"), ("arrays", kind), (kind, "PyDataset")):
        held_out = data_of(validation, images, labels)
        if validation != "arrays" and isinstance(held_out, tuple):
            held_out = held_out[0]
        data = as_arguments(train, images, labels)
        batch = {"batch_size": 8} if train == "arrays" else {}
        history = model.fit(*data, validation_data=held_out, verbose=0, **batch).history
        loss = model.evaluate(images, labels, batch_size=8, verbose=0)[0]
        assert history["val_loss"] == [pytest.approx(loss, rel=1e-4)]


def in_dicts(kind, images, labels):
    """Data as TFDS gives them, in batches of 8."""
    rows = [{"image": i, "label": n} for i, n in zip(images, labels, strict=True)]
    starts = range(0, len(images), 8)
    batches = [{"image": images[i : i + 8], "label": labels[i : i + 8]} for i in starts]
    if kind == "PyDataset":
        return Batches(batches)
    if kind == "DataLoader":
        return pytest.importorskip("torch").utils.data.DataLoader(rows, batch_size=8)
    return grain_data(kind, rows) if kind in GRAIN else iter_of(batches)


class Batches(keras.utils.PyDataset):
    def __init__(self, batches):
        super().__init__()
        self.batches = batches

    def __len__(self):
        return len(self.batches)

    def __getitem__(self, index):
        return self.batches[index]


def iter_of(batches):
    yield from batches


@pytest.mark.parametrize("kind", ["PyDataset", "generator", "DataLoader", *GRAIN])
def test_images_and_labels_in_dicts(kind, compiled):
    images, labels = random_images(20, 16, 16, 3), np.arange(20) % 5
    model, weights = compiled
    model.set_weights(weights)
    figures = model.evaluate(images, labels, verbose=0, batch_size=8)
    found = model.evaluate(in_dicts(kind, images, labels), verbose=0)
    np.testing.assert_allclose(found, figures, rtol=1e-5)
    logits = model.predict(images, verbose=0, batch_size=8)
    found = model.predict(in_dicts(kind, images, labels), verbose=0)
    np.testing.assert_allclose(found, logits, atol=1e-5)
    found = lsmha.evaluate(model, in_dicts(kind, images, labels), batch_size=8)
    assert found["loss"] == pytest.approx(figures[0], rel=1e-5) and found["num_images"] == 20
    model.optimizer.learning_rate = 0.0
    losses = model.fit(in_dicts(kind, images, labels), verbose=0).history["loss"]
    assert losses == [pytest.approx(figures[0], rel=0.05)]  # batch statistics are of the batch


@pytest.mark.skipif(keras.config.backend() != "tensorflow", reason="about a list of TensorFlow's")
@pytest.mark.parametrize("kind", ["arrays", "PyDataset", "generator"])
def test_calls_keep_neither_the_model_nor_its_images(kind):
    images, labels = random_images(16, 16, 16, 3), np.arange(16) % 5
    model = small_classifier(**STILL)
    for verb in ("fit", "evaluate", "predict"):
        data = as_arguments(kind, images, labels)
        getattr(model, verb)(*data[: 1 if verb == "predict" else 2], verbose=0)
    if kind == "arrays":
        lsmha.SoftCommittee([model]).predict_members(images, verbose=0)
    kept = {"model": weakref.ref(model), "images": weakref.ref(images)}
    del model, images, labels, data
    gc.collect()
    assert not [name for name, value in kept.items() if value() is not None]


@pytest.mark.parametrize("kind", ["PyDataset", "generator", "DataLoader", "tf.data"])
def test_errors_in_data_are_reported_in_one_line(kind):
    images, labels = random_images(16, 16, 16, 3), np.arange(16) % 5
    nothing = (images[:0], labels[:0])
    damaged = images.astype("float32")
    damaged[12] = np.nan
    labels_of_others = np.where(np.arange(16) == 12, 7, labels)
    model = small_classifier(**STILL)
    for verb in ("fit", "evaluate", "predict"):
        cases = [(nothing, "at least one batch"), ((damaged, labels), "values from nan to nan")]
        if verb != "predict":
            cases.append(((images, labels_of_others), "labels from (0|1) to 7"))
        for data, message in cases:
            with pytest.raises(ValueError, match=f"^[^\\n]*{message}"):
                getattr(model, verb)(as_arguments(kind, *data)[0], verbose=0)
    for data, message in (
        (nothing, "holds no images"),
        ((damaged, labels), "values from nan to nan"),
        ((images, labels_of_others), "label 7 of sample 12"),
    ):
        with pytest.raises(ValueError, match=f"^[^\\n]*{message}"):
            lsmha.evaluate(model, as_arguments(kind, *data)[0], batch_size=8)


def empty_data(kind):
    """Data of unknown length that turn out to hold no batch."""
    if kind == "tf.data":
        tf = pytest.importorskip("tensorflow")
        images = tf.data.Dataset.from_tensor_slices((np.zeros((4, 16, 16, 3)), np.zeros(4, int)))
        return images.filter(lambda image, label: label > 0).batch(2)
    data = pytest.importorskip("torch").utils.data

    class Nothing(data.IterableDataset):
        def __iter__(self):
            return iter([])

    return data.DataLoader(Nothing(), batch_size=2)


@pytest.mark.parametrize("kind", ["tf.data", "DataLoader"])
@pytest.mark.parametrize("verb", ["fit", "evaluate", "predict", "validation"])
def test_data_of_unknown_length_that_hold_nothing(kind, verb):
    model, nothing = small_classifier(), empty_data(kind)
    with pytest.raises(ValueError, match="^Data must hold at least one batch. Received: a"):
        if verb == "validation":
            images = np.zeros((4, 16, 16, 3), "uint8")
            model.fit(images, np.arange(4), validation_data=nothing, verbose=0)
        else:
            getattr(model, verb)(nothing, verbose=0)


@pytest.mark.parametrize("kind", ["arrays", "PyDataset", "tf.data"])
@pytest.mark.parametrize("loss", ["sparse", "one-hot"])
def test_labels_and_weights_that_are_no_numbers(kind, loss):
    images, labels = random_images(16, 16, 16, 3), np.arange(16) % 5.0
    model, weights = small_classifier(), np.ones(16, "float32")
    if loss == "one-hot":
        labels = np.eye(5, dtype="float32")[labels.astype(int)]
        model.compile("sgd", keras.losses.CategoricalCrossentropy(from_logits=True))
    bad_labels, bad_weights = labels.copy(), weights.copy()
    bad_labels[3], bad_weights[3] = np.nan, np.inf
    cases = [((bad_labels, weights), "label.*nan"), ((labels, bad_weights), "sample weight inf")]
    if loss == "sparse":
        cases.append(((labels + 0.5, weights), "whole numbers.* Received: label [0-4].5"))
        cases.append(((labels + 3, weights), "labels from [3-6].0 to 7.0"))
    for (y, weight), message in cases:
        data = Weighted(images, y, weight).of(kind)
        with pytest.raises(ValueError, match=f"^[^\\n]*{message}"):
            model.evaluate(**data, verbose=0)
    # Numbers of floating point are labels, if they are whole.
    loss = model.evaluate(**Weighted(images, labels, weights).of(kind), verbose=0, return_dict=True)
    assert np.isfinite(loss["loss"])
    with pytest.raises(ValueError, match="label.*nan"):
        model.fit(**Weighted(images, bad_labels, weights).of(kind), verbose=0)
    with pytest.raises(ValueError, match="Received: label .*nan.* of sample 3$"):
        lsmha.evaluate(model, (images, bad_labels))


class Weighted(keras.utils.PyDataset):
    """Images, labels and sample weights in batches of 8."""

    def __init__(self, *arrays):
        super().__init__()
        self.arrays = arrays

    def __len__(self):
        return len(self.arrays[0]) // 8

    def __getitem__(self, index):
        return tuple(array[8 * index : 8 * index + 8] for array in self.arrays)

    def of(self, kind):
        if kind == "PyDataset":
            return {"x": self}
        if kind == "tf.data":
            tf = pytest.importorskip("tensorflow")
            return {"x": tf.data.Dataset.from_tensor_slices(self.arrays).batch(8)}
        return dict(zip(("x", "y", "sample_weight"), self.arrays, strict=True))


@pytest.mark.parametrize(
    ("verb", "name"),
    [
        ("fit", "batch_size"),
        ("fit", "steps_per_epoch"),
        ("fit", "validation_steps"),
        ("fit", "validation_batch_size"),
        ("evaluate", "batch_size"),
        ("evaluate", "steps"),
        ("predict", "batch_size"),
        ("predict", "steps"),
    ],
)
def test_numbers_of_batches_and_images_are_positive(verb, name):
    """Keras treats 0 as "not given" and reads all of the data."""
    images, labels = random_images(8, 16, 16, 3), np.arange(8) % 5
    model = small_classifier()
    for value in (0, -1, 1.5):
        labelled = () if verb == "predict" else (labels,)
        with pytest.raises(ValueError, match=f"`{name}` must be .* Received: {name}={value}"):
            getattr(model, verb)(images, *labelled, verbose=0, **{name: value})


def test_validation_has_its_own_batch_size():
    images, labels = random_images(8, 16, 16, 3), np.arange(8) % 5
    model, batches = small_classifier(), []
    watch = keras.callbacks.Callback()
    watch.on_test_batch_end = lambda batch, logs=None: batches.append(batch)
    held_out = {"validation_data": (images, labels), "validation_batch_size": 2}
    model.fit(images, labels, batch_size=8, callbacks=[watch], verbose=0, **held_out)
    assert batches == [0, 1, 2, 3]


def test_elements_that_are_no_batches():
    tf = pytest.importorskip("tensorflow")
    images = tf.data.Dataset.from_tensor_slices(np.zeros((4, 16, 16, 3), "uint8"))
    with pytest.raises(ValueError, match=r"call its `batch`. Received: .* \(16, 16, 3\)"):
        small_classifier().predict(images, verbose=0)


def test_images_of_different_sizes():
    images = [
        random_images(*shape, 3, seed=i) for i, shape in enumerate([(16, 16), (40, 24), (9, 9)])
    ]
    model = small_classifier(**STILL)
    expected = np.concatenate([model.predict(image[None], verbose=0) for image in images])
    np.testing.assert_allclose(model.predict(images, batch_size=2, verbose=0), expected, atol=1e-5)
    labels = np.arange(3)
    logits = expected - expected.max(axis=1, keepdims=True)
    losses = np.log(np.exp(logits).sum(axis=1)) - logits[labels, labels]
    loss = model.evaluate(images, labels, verbose=0)[0]
    assert loss == pytest.approx(losses.mean(), rel=1e-4)
    model.fit(images, labels, batch_size=2, verbose=0)
    with pytest.raises(ValueError, match="labels from 0 to 7"):
        model.evaluate(images, [0, 1, 7], verbose=0)
    model.preprocessor.image_converter.image_size = None
    with pytest.raises(ValueError, match=r"different sizes.*\(9, 9, 3\)"):
        model.predict(images, verbose=0)


def test_data_that_supplies_its_labels_takes_no_others():
    images, labels = random_images(8, 16, 16, 3), np.arange(8) % 5
    with pytest.raises(ValueError, match="generator supplies .* Received: y of type ndarray"):
        small_classifier().fit((batch for batch in [(images, labels)]), labels)
    with pytest.raises(ValueError, match="x of type generator"):
        small_classifier().fit((b for b in [(images, labels)]), validation_split=0.5)


@pytest.mark.skipif(keras.config.backend() != "torch", reason="a limit of the torch backend")
def test_several_steps_per_execution_are_refused_on_torch():
    model = small_classifier()
    model.compile("sgd", model.loss, steps_per_execution=4)
    with pytest.raises(ValueError, match="`steps_per_execution` must be 1.*Received.*=4"):
        model.fit(random_images(8, 16, 16, 3), np.arange(8) % 5, verbose=0)
