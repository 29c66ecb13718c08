"""Interruptions, and calls from other threads, do not damage a model."""

import threading

import keras
import numpy as np
import pytest

import lsmha_keras as lsmha
from tests.checks import random_images
from tests.models.test_cct_image_classifier import small_classifier

STILL = {"attention_dropout": 0.0, "stochastic_depth_rate": 0.0}
IMAGES, LABELS = random_images(24, 16, 16, 3), np.arange(24) % 5
OPTIONS = {"batch_size": 8, "verbose": 0}


class Stop(keras.callbacks.Callback):
    """Ctrl-C after the second batch."""

    def on_predict_batch_end(self, batch, logs=None):
        if batch == 1:
            raise KeyboardInterrupt

    on_train_batch_end = on_test_batch_end = on_predict_batch_end


@pytest.fixture(scope="module")
def model():
    model = small_classifier(**STILL)
    model.compile(keras.optimizers.SGD(0.0), model.loss)
    return model


@pytest.mark.parametrize("verb", ["predict", "evaluate", "fit"])
def test_a_bad_batch_and_ctrl_c_leave_the_weights(model, verb):
    weights = model.backbone.trainable_weights
    before = [keras.ops.convert_to_numpy(weight) for weight in weights]
    damaged, labels = IMAGES.astype("float32"), np.where(np.arange(24) == 20, 7, LABELS)
    damaged[20] = np.nan
    data = (damaged,) if verb == "predict" else (damaged, LABELS)
    order = {"shuffle": False} if verb == "fit" else {}
    with pytest.raises(ValueError, match="^Images .* Received: values from nan to nan$"):
        getattr(model, verb)(*data, **OPTIONS, **order)
    if verb != "predict":
        with pytest.raises(ValueError, match="^Labels .* labels from 1 to 7$"):
            getattr(model, verb)(IMAGES, labels, **OPTIONS, **order)
    data = (IMAGES,) if verb == "predict" else (IMAGES, LABELS)
    with pytest.raises(KeyboardInterrupt):
        getattr(model, verb)(*data, **OPTIONS, callbacks=[Stop()])
    for weight, value in zip(weights, before, strict=True):
        np.testing.assert_array_equal(keras.ops.convert_to_numpy(weight), value)
    assert np.isfinite(model.predict(IMAGES, **OPTIONS)).all()
    # What the failed calls have left does not come back over new weights.
    weights[0].assign(before[0] + 1)
    model.predict(IMAGES, **OPTIONS)
    np.testing.assert_array_equal(keras.ops.convert_to_numpy(weights[0]), before[0] + 1)
    weights[0].assign(before[0])


def test_a_bad_batch_leaves_the_members_of_a_committee(model):
    committee = lsmha.SoftCommittee([model, small_classifier()])
    expected = committee.predict_members(IMAGES, **OPTIONS)
    damaged = IMAGES.astype("float32")
    damaged[20] = np.nan
    with pytest.raises(ValueError, match="nan"):
        committee.predict_members(damaged, **OPTIONS)
    np.testing.assert_allclose(committee.predict_members(IMAGES, **OPTIONS), expected, atol=1e-5)
    np.testing.assert_allclose(model.predict(IMAGES, **OPTIONS), expected[:, 0], atol=1e-5)


class Predict(keras.callbacks.Callback):
    """Calls `predict` on the model in the middle of an epoch."""

    def __init__(self, classifier):
        super().__init__()
        self.classifier, self.outputs = classifier, []

    def on_train_batch_end(self, batch, logs=None):
        self.outputs.append(self.classifier.predict(IMAGES[:8], **OPTIONS))


def test_predictions_in_callbacks_change_nothing(model):
    fitted = []
    for watched in (False, True):
        copy = type(model).from_config(model.get_config())
        copy.set_weights(model.get_weights())
        copy.compile(keras.optimizers.SGD(0.1), model.loss)
        watchers = [Predict(copy)] if watched else []
        copy.fit(IMAGES, LABELS, epochs=2, shuffle=False, callbacks=watchers, **OPTIONS)
        fitted.append(copy)
    outputs = watchers[0].outputs
    assert len(outputs) == 6 and not np.allclose(outputs[0], outputs[1], atol=1e-6)
    np.testing.assert_allclose(outputs[-1], fitted[1].predict(IMAGES[:8], **OPTIONS), atol=1e-5)
    for one, two in zip(*(m.get_weights() for m in fitted), strict=True):
        np.testing.assert_allclose(one, two, atol=1e-5)


class Wait(keras.callbacks.Callback):
    """Pauses a training after its first batch until it is released."""

    def __init__(self):
        super().__init__()
        self.begun, self.go_on = threading.Event(), threading.Event()

    def on_train_batch_end(self, batch, logs=None):
        self.begun.set()
        self.go_on.wait(60)


def test_what_cannot_run_beside_a_training_is_refused(model):
    committee = lsmha.SoftCommittee([model])
    expected = model.predict(IMAGES, **OPTIONS)
    wait, histories = Wait(), []

    def train():
        history = model.fit(IMAGES, LABELS, shuffle=False, callbacks=[wait], **OPTIONS)
        histories.append(history.history["loss"])

    thread = threading.Thread(target=train)
    thread.start()
    try:
        assert wait.begun.wait(60)
        for user in (model, committee):
            with pytest.raises(RuntimeError, match="`evaluate` cannot run while another thread"):
                user.evaluate(IMAGES, LABELS, **OPTIONS)
            with pytest.raises(RuntimeError, match="`fit` cannot run while another thread"):
                user.fit(IMAGES, LABELS, **OPTIONS)
            if keras.config.backend() == "jax":
                with pytest.raises(RuntimeError, match="`predict` cannot run"):
                    user.predict(IMAGES, **OPTIONS)
            else:  # Its learning rate is 0; batch statistics move.
                assert user.predict(IMAGES, **OPTIONS).shape == expected.shape
    finally:
        wait.go_on.set()
        thread.join()
    alone = model.fit(IMAGES, LABELS, shuffle=False, **OPTIONS).history["loss"]
    np.testing.assert_allclose(histories[0], alone, rtol=1e-5)
    assert model.predict(IMAGES, **OPTIONS).shape == expected.shape
