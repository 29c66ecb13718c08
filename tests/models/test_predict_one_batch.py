"""One batch gives what `keras.Model.predict` gives, on TensorFlow without tf.data."""

import re

import keras
import numpy as np
import pytest

import lsmha_keras as lsmha
from tests.checks import random_images
from tests.models.test_cct_image_classifier import small_classifier
from tests.test_cli import run_python

on_tensorflow = pytest.mark.skipif(
    keras.config.backend() != "tensorflow", reason="the other backends have no costly pipeline"
)
IMAGES = random_images(5, 16, 16, 3)


@pytest.fixture(scope="module")
def model():
    return small_classifier()


@pytest.fixture(scope="module")
def expected(model):
    """Runs Keras's own loop, as there are three batches."""
    return model.predict(IMAGES, batch_size=2, verbose=0)


@pytest.fixture
def no_pipeline(monkeypatch):
    def refuse(*args, **kwargs):
        raise AssertionError("a pipeline was set up for one batch")

    monkeypatch.setattr(keras.Model, "predict", refuse)


@on_tensorflow
@pytest.mark.parametrize(
    ("given", "options"),
    [
        (IMAGES, {}),
        (IMAGES, {"batch_size": 5}),
        (IMAGES.astype("float64"), {"batch_size": 64}),
        (keras.ops.convert_to_tensor(IMAGES), {}),
        (list(IMAGES), {"verbose": 1}),
        (IMAGES[:1], {"batch_size": 1}),
        (IMAGES[0], {"verbose": 2}),
    ],
)
def test_one_batch_needs_no_pipeline(given, options, model, expected, no_pipeline):
    found = model.predict(given, **{"verbose": 0, **options})
    assert (type(found), found.dtype) == (np.ndarray, np.float32)
    np.testing.assert_allclose(found, expected[: len(found)], atol=1e-5)
    assert len(found) == (1 if np.ndim(given) == 3 else len(given))


@on_tensorflow
def test_models_without_a_preprocessor_and_committees_need_none(expected, model, no_pipeline):
    bare = lsmha.CCTImageClassifier(model.backbone, 5)
    values = np.random.default_rng(0).normal(size=(2, 16, 16, 3))
    found = bare.predict(values, verbose=0)
    np.testing.assert_allclose(found, bare(values.astype("float32")), atol=1e-5)
    committee = lsmha.SoftCommittee([model, model])
    found, one = (m.probabilities(m.predict(IMAGES, verbose=0)) for m in (committee, model))
    np.testing.assert_allclose(found, one, atol=1e-5)


@pytest.mark.parametrize("verbose", [0, 1, 2])
def test_what_is_shown_is_keras_own(verbose, model, capsys):
    shown = []
    for predict in (model.predict, lambda x, **kw: keras.Model.predict(model, x / 255, **kw)):
        predict(IMAGES, verbose=verbose)
        text = capsys.readouterr().out
        shown.append(re.sub(r"[\b\r]|\d+[mu]?s", "", text).split())
    assert shown[0] == shown[1]
    assert bool(shown[0]) == bool(verbose)


class Noted(keras.callbacks.Callback):
    def __init__(self):
        super().__init__()
        self.events = []

    def on_predict_begin(self, logs=None):
        self.events.append("begin")

    def on_predict_batch_end(self, batch, logs=None):
        self.events.append((batch, np.shape(logs["outputs"])))

    def on_predict_end(self, logs=None):
        self.events.append("end")


def test_callbacks_and_steps_are_heeded(model, expected):
    noted = Noted()
    found = model.predict(IMAGES, verbose=0, callbacks=[noted])
    assert noted.events == ["begin", (0, (5, 5)), "end"]
    np.testing.assert_allclose(found, expected, atol=1e-5)
    assert len(model.predict(IMAGES, batch_size=2, steps=1, verbose=0)) == 2


CODE = """
import keras, numpy as np, tensorflow as tf
cpu, one = tf.config.list_physical_devices("CPU")[0], tf.config.LogicalDeviceConfiguration()
tf.config.set_logical_device_configuration(cpu, [one, one])
from tests.models.test_predict_one_batch import IMAGES, small_classifier
model = small_classifier()
with tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"]).scope():
    two = small_classifier()
two.set_weights(model.get_weights())
expected = model.predict(IMAGES[:4], verbose=0)
keras.Model.predict_on_batch = None  # would give the whole batch to each of them
found = two.predict(IMAGES[:4], verbose=0)
np.testing.assert_allclose(found, expected, atol=1e-5)
print(two.distribute_strategy.num_replicas_in_sync)
"""


@on_tensorflow
@pytest.mark.slow
def test_replicas_share_a_batch_as_before():
    done = run_python("-c", CODE)
    assert done.stdout == "2\n", done.stderr
