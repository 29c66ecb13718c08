import copy
import csv
import importlib.util
import math
import random

import keras
import numpy as np
import pytest

import lsmha_keras as lsmha
from lsmha_keras.data.datasets import ArrayDataset
from lsmha_keras.shp.callback import SHPCallback
from lsmha_keras.shp.head_outputs import compile_setting
from lsmha_keras.shp.performance import single_head_performance
from lsmha_keras.shp.readout_trainer import fit_readout
from lsmha_keras.shp.shp_result import SHPResult
from lsmha_keras.training.train import train
from tests.training.tiny import CLASSES, SIDE, read_history, recipe_dict, write_dataset

FIGURES = ("snr", "clusters_per_head", "noise_per_head", "coverage", "readout_accuracy")
BLOCK = 1  # block 0 is convolutional
EPOCHS = 5


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    return write_dataset(tmp_path_factory.mktemp("data") / "tiny.npz")


@pytest.fixture(scope="module")
def data(path):
    with np.load(path) as arrays:
        return {part: (arrays[f"x_{part}"], arrays[f"y_{part}"]) for part in ("train", "test")}


def make_model(learning_rate=2e-3, use_ema=False, num_conv_blocks=1):
    """A model with all randomness of a training, from one seed."""
    keras.utils.set_random_seed(4)
    model = lsmha.CCTImageClassifier.from_preset(
        "cct_2_3x2",
        num_classes=CLASSES,
        image_shape=(SIDE, SIDE, 3),
        num_conv_blocks=num_conv_blocks,
        hidden_dim=16,
        mlp_dim=16,
        tokenizer_filters=8,
        dropout_rate=0.2,
        stochastic_depth_rate=0.2,
    )
    # As they are initialised, weights are so small that heads do next to nothing.
    rng = np.random.default_rng(0)
    for weight in model.trainable_weights:
        if "kernel" in weight.path:
            weight.assign(rng.normal(size=weight.shape) / np.sqrt(np.prod(weight.shape[:-1])))
    model.compile(
        optimizer=keras.optimizers.AdamW(learning_rate, use_ema=use_ema, ema_momentum=0.8),
        loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=["accuracy"],
        jit_compile=compile_setting(),
    )
    return model


def make_callback(data, **kwargs):
    return SHPCallback(data["train"], data["test"], max_images=30, **kwargs)


def fit(model, data, callbacks, epochs):
    return model.fit(*data["train"], epochs=epochs, verbose=0, callbacks=callbacks).history


def columns(history):
    return {name: history[f"shp/block_{BLOCK}_{name}"] for name in FIGURES}


def measure(model, readouts, data, pooling="recomputed", threshold=0.3):
    return single_head_performance(
        model, readouts, data["test"], pooling, threshold, max_images=30, verbose=0
    )


def random_states():
    states = [random.getstate(), np.random.get_state()[1].tolist()]
    if keras.backend.backend() == "torch":
        import torch

        states.append(torch.get_rng_state().tolist())
    return states


@pytest.fixture(scope="module")
def watched(data, tmp_path_factory):
    """A training with the callback: callback, history, weights, random states, folder."""
    folder = tmp_path_factory.mktemp("watched")
    callback = make_callback(data, every=2, output_dir=folder / "shp")
    loggers = [keras.callbacks.CSVLogger(folder / "log.csv")]
    if importlib.util.find_spec("tensorflow") and importlib.util.find_spec("tensorboard"):
        loggers.append(keras.callbacks.TensorBoard(str(folder / "board"), write_graph=False))
    model = make_model()
    history = fit(model, data, [callback, *loggers], EPOCHS)
    return callback, history, model.get_weights(), random_states(), folder


def test_training_goes_on_as_without_it(data, watched):
    _, watched_history, watched_weights, watched_states, _ = watched
    model = make_model()
    history = fit(model, data, [], EPOCHS)
    assert random_states() == watched_states
    for name in ("loss", "accuracy"):
        assert history[name] == watched_history[name]
    for without, with_callback in zip(model.get_weights(), watched_weights, strict=True):
        np.testing.assert_array_equal(without, with_callback)


def test_epochs_between_measurements_are_nan(watched):
    for values in columns(watched[1]).values():
        assert [math.isnan(value) for value in values] == [False, False, True, False, True]


def test_csv_logger_writes_the_figures(watched):
    _, history, _, _, folder = watched
    with (folder / "log.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    for name, values in columns(history).items():
        logged = [float(row[f"shp/block_{BLOCK}_{name}"]) for row in rows]
        assert logged == pytest.approx(values, nan_ok=True)


def test_tensorboard_shows_the_figures(watched):
    tf = pytest.importorskip("tensorflow")
    pytest.importorskip("tensorboard")
    _, history, _, _, folder = watched
    shown = {}
    for path in folder.glob("board/train/*tfevents*"):
        for event in tf.compat.v1.train.summary_iterator(str(path)):
            for value in event.summary.value:
                shown.setdefault(value.tag, []).append(tf.make_ndarray(value.tensor).item())
    for name, values in columns(history).items():
        assert shown[f"epoch_shp/block_{BLOCK}_{name}"] == pytest.approx(values, nan_ok=True)


def test_results_are_kept(watched):
    callback, history, _, _, folder = watched
    assert sorted(file.name for file in (folder / "shp").iterdir()) == [
        f"epoch_00{epoch}_block_{BLOCK}.npz" for epoch in (1, 2, 4)
    ]
    for epoch in (1, 2, 4):
        saved = SHPResult.load(folder / "shp" / f"epoch_00{epoch}_block_{BLOCK}.npz")
        assert saved.snr == pytest.approx(columns(history)["snr"][epoch - 1])
    np.testing.assert_array_equal(saved.class_means, callback.results[BLOCK].class_means)


def test_a_copy_serves_another_training(data, watched):
    """KerasTuner copies the callbacks for each trial; copies share no state."""
    callback, history, *_ = watched
    clone, results = copy.deepcopy(callback), callback.results
    clone.directory = None
    assert clone.train_data is callback.train_data
    expected = {name: values[:2] for name, values in history.items()}
    assert fit(make_model(), data, [clone], epochs=2) == expected
    assert callback.results is results and clone.results is not results


def test_figures_are_those_of_the_functions(data):
    """After one epoch: the model still has the averages of its weights, which were measured."""
    model = make_model(use_ema=True)
    callback = make_callback(data, pooling="frozen", threshold=0.4)
    history = columns(fit(model, data, [callback], epochs=1))
    readouts = fit_readout(
        model, data["train"], epochs=1, learning_rate=1e-2, max_images=30, verbose=0
    )
    result = measure(model, readouts, data, "frozen", threshold=0.4)[BLOCK]
    assert_measured(callback, history, result)


def test_readouts_train_on_from_where_they_were(data):
    # A trunk that stands still: no steps, no batch statistics.
    model = make_model(learning_rate=0.0, num_conv_blocks=0)
    callback = make_callback(data, blocks=[BLOCK])
    history = columns(fit(model, data, [callback], epochs=2))
    options = {"blocks": [BLOCK], "learning_rate": 1e-2, "max_images": 30, "verbose": 0}
    first = fit_readout(model, data["train"], epochs=1, seed=0, **options)
    then = fit_readout(model, data["train"], epochs=1, seed=1, initial=first, **options)
    assert_measured(callback, history, measure(model, then, data)[BLOCK])


def assert_measured(callback, history, result):
    """The callback's last results and figures are those of `result`."""
    means = callback.results[BLOCK].class_means
    np.testing.assert_allclose(means, result.class_means, atol=1e-5)
    expected = {
        "snr": result.snr,
        "clusters_per_head": np.mean([len(clusters) for clusters in result.clusters]),
        "noise_per_head": result.noise,
        "coverage": np.mean(result.coverage),
        "readout_accuracy": result.readout_accuracy,
    }
    last = {name: values[-1] for name, values in history.items()}
    assert last == {name: pytest.approx(value, rel=1e-4) for name, value in expected.items()}


class Recorder(ArrayDataset):
    """Records which images are read."""

    def __init__(self, images, labels):
        super().__init__(images, labels)
        self.read = set()

    def _read(self, rows):
        self.read |= set(rows.tolist())
        return super()._read(rows)


def test_a_measurement_reads_few_images(data):
    """The readouts get other images each time; the measurement always gets the same."""
    train_data, test_data = Recorder(*data["train"]), Recorder(*data["test"])
    read = []

    class Collect(keras.callbacks.Callback):
        def on_epoch_end(self, epoch, logs=None):
            read.append((train_data.read, test_data.read))
            train_data.read, test_data.read = set(), set()

    callback = SHPCallback(train_data, test_data, blocks=[1], max_images=20, readout_epochs=2)
    history = fit(make_model(num_conv_blocks=0), data, [callback, Collect()], epochs=3)
    (_, _), (train_2, test_2), (train_3, test_3) = read
    assert len(train_2) == len(train_3) == len(test_2) == 20
    assert train_2 != train_3 and test_2 == test_3
    assert {name[:11] for name in history if "shp" in name} == {"shp/block_1"}  # not block 0


@pytest.mark.slow
def test_training_from_a_recipe(path, tmp_path):
    """With datasets by name, the figures are in the run's table, and the run is unchanged."""
    recipe = recipe_dict(path, schedule={"epochs": 2}, data={"validation_split": "test"})
    plain = train(recipe, tmp_path / "plain", verbose=0)
    callback = SHPCallback("tiny.npz", "tiny.npz", data_dir=path.parent)
    watched = train(recipe, tmp_path / "watched", callbacks=[callback], verbose=0)
    assert callback.results[1].label_counts.sum() == 40  # the test images
    rows = read_history(tmp_path / "watched")
    assert rows[-1]["shp/block_1_snr"] == pytest.approx(callback.results[1].snr)
    for name in ("loss", "accuracy", "val_loss"):
        assert [row[name] for row in plain.history] == [row[name] for row in watched.history]


@pytest.mark.parametrize(
    "arguments",
    [
        {"every": 0},
        {"every": 1.5},
        {"max_images": 0},
        {"max_images": True},
        {"readout_epochs": -1},
        {"threshold": 1.0},
        {"pooling": "mean"},
    ],
)
def test_bad_arguments(data, arguments):
    ((name, value),) = arguments.items()
    with pytest.raises(ValueError, match=f"`{name}` must .* Received: {name}={value!r}"):
        SHPCallback(data["train"], data["test"], **arguments)


@pytest.fixture(scope="module")
def untrained():
    return make_model()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda d: {"blocks": [0]}, r"some of \[1\].* Received: blocks=\[0\]"),
        (lambda d: {"blocks": [1, 3]}, r"Received: blocks=\[1, 3\]"),
        (lambda d: {"train_data": d["train"][0]}, "pair of arrays"),
        (lambda d: {"validation_data": (d["test"][0], d["test"][1] + 4)}, "Received: label 4"),
        (lambda d: {"validation_data": (d["test"][0][:0], d["test"][1][:0])}, "0 images"),
        (lambda d: {"validation_data": "nowhere.npz"}, "Received: name='nowhere.npz'"),
    ],
)
def test_bad_data_stop_training_before_it_starts(data, untrained, change, message):
    arguments = {"train_data": data["train"], "validation_data": data["test"], **change(data)}
    epochs = []
    watch = keras.callbacks.LambdaCallback(on_epoch_begin=lambda epoch, logs: epochs.append(epoch))
    with pytest.raises(ValueError, match=message):
        fit(untrained, data, [SHPCallback(**arguments), watch], epochs=1)
    assert not epochs
