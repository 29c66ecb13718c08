"""Figures class by class, against loops by hand."""

import keras
import numpy as np
import pytest

from lsmha_keras.training.class_report import NUM_BINS, class_report
from lsmha_keras.training.evaluate import evaluate

pytestmark = pytest.mark.backend_free


class _Looked(keras.Model):
    """Gives the logits that are written in the first row of each image's pixels."""

    def call(self, images):
        return keras.ops.cast(images[:, 0, :3, 0], "float32") / 32.0


@pytest.fixture(scope="module")
def case():
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (200, 1, 3, 3), dtype="uint8")
    labels = rng.integers(0, 3, 200)
    inputs = keras.Input((1, 3, 3))
    return keras.Model(inputs, _Looked()(inputs)), images, labels


def test_against_loops(case):
    model, images, labels = case
    report = class_report(model, (images, labels), batch_size=64)
    logits = images[:, 0, :, 0] / 32
    probabilities = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    answers = probabilities.argmax(axis=1)
    for row in report.per_class:
        label = row["label"]
        own = [answer for answer, true in zip(answers, labels, strict=True) if true == label]
        given = [true for answer, true in zip(answers, labels, strict=True) if answer == label]
        assert row["name"] == str(label) and row["images"] == len(own)
        assert row["accuracy"] == pytest.approx(own.count(label) / len(own), abs=1e-6)
        assert row["precision"] == pytest.approx(given.count(label) / len(given), abs=1e-6)
        others = [answer for answer in own if answer != label]
        counts = {str(other): others.count(other) for other in set(others)}
        assert counts[row["most_confused_with"]] == max(counts.values())
    error = 0.0
    for i, row in enumerate(report.calibration):
        inside = [
            (max(p), int(p.argmax() == label))
            for p, label in zip(probabilities, labels, strict=True)
            if i / NUM_BINS < max(p) <= (i + 1) / NUM_BINS
        ]
        assert row["images"] == len(inside)
        if inside:
            confidence, right = np.mean(inside, axis=0)
            assert row["confidence"] == pytest.approx(confidence, abs=1e-5)
            assert row["accuracy"] == pytest.approx(right, abs=1e-6)
            error += len(inside) / len(labels) * abs(confidence - right)
    assert sum(row["images"] for row in report.calibration) == 200
    assert report.figures["ece"] == pytest.approx(error, abs=1e-5)
    assert report.figures["confidence"] == pytest.approx(probabilities.max(axis=1).mean(), abs=1e-5)


def test_the_other_figures_are_those_of_evaluate(case):
    model, images, labels = case
    figures = class_report(model, (images, labels)).figures
    expected = evaluate(model, (images, labels))
    assert {key: figures[key] for key in expected} == pytest.approx(expected)


def test_a_class_without_images_has_no_accuracy(case):
    model, images, _ = case
    report = class_report(model, (images[:20], np.zeros(20, int)))
    assert report.per_class[1]["images"] == 0 and report.per_class[1]["accuracy"] == ""
    assert report.per_class[1]["precision"] in (0.0, "")
