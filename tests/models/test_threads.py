"""Models in a server: built, loaded and called in several threads at once."""

import sys
import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

import lsmha_keras as lsmha
from tests.checks import random_images
from tests.models.test_cct_image_classifier import small_classifier

THREADS = 8


def in_threads(function):
    """Calls `function` with 0 to 7, each in its own thread, all started together."""
    barrier = threading.Barrier(THREADS)

    def begin(i):
        barrier.wait()
        return function(i)

    with ThreadPoolExecutor(THREADS) as pool:
        return list(pool.map(begin, range(THREADS)))


@pytest.fixture
def frequent_switches():
    """Makes Python switch threads very often, so that races show."""
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    yield
    sys.setswitchinterval(interval)


def test_predictions_in_threads_are_those_of_one(frequent_switches):
    images = random_images(THREADS, 16, 16, 3)
    model, fresh = small_classifier(), small_classifier()
    expected = model.predict(images, verbose=0)
    fresh.set_weights(model.get_weights())  # The first predictions are made in threads.
    found = in_threads(lambda i: [fresh.predict(images[i], verbose=0) for _ in range(125)])
    for row, logits in zip(expected, found, strict=True):
        np.testing.assert_allclose(np.concatenate(logits), np.tile(row, (125, 1)), atol=1e-5)
    labels = np.arange(THREADS) % 5
    figures = fresh.evaluate(images, labels, verbose=0)
    for found in in_threads(lambda i: fresh.evaluate(images, labels, verbose=0)):
        np.testing.assert_allclose(found, figures, rtol=1e-5)


def test_presets_load_in_threads_while_others_predict(tmp_path, frequent_switches):
    images = random_images(2, 16, 16, 3)
    model = small_classifier()
    model.save_to_preset(tmp_path)
    expected = model.predict(images, verbose=0)

    def load_or_predict(i):
        if i % 2:
            return [model.predict(images, verbose=0) for _ in range(5)][-1]
        return lsmha.CCTImageClassifier.from_preset(tmp_path).predict(images, verbose=0)

    for logits in in_threads(load_or_predict):
        np.testing.assert_allclose(logits, expected, atol=1e-5)
