"""What becomes of a model without some of its heads: against masks and plain evaluation."""

import numpy as np
import pytest

from lsmha_keras.data.superclasses import SUPERCLASSES
from lsmha_keras.evidence.head_measures import (
    FRACTIONS,
    NONE,
    HeadMeasures,
    agreement_rows,
    difference,
)
from lsmha_keras.surgery.prune_heads import prune_heads
from lsmha_keras.training.evaluate import evaluate
from tests.shp.models import pictures, small_classifier

pytest.importorskip("scipy", reason='clusters need pip install "lsmha-keras[explain]"')
pytest.importorskip("sklearn", reason='the Rand index needs pip install "lsmha-keras[data]"')


class Pictures:
    """Labelled images as datasets give them."""

    def __init__(self, images, labels):
        self.images, self.labels, self.name = images, labels, "pictures"
        self.image_shape, self.class_names = images.shape[1:], CLASSES

    def __len__(self):
        return len(self.labels)

    def load(self, rows):
        return self.images[rows]

    def select(self, rows):
        return Pictures(self.images[rows], self.labels[rows])


CLASSES = sum(SUPERCLASSES.values(), [])


@pytest.fixture(scope="module")
def measures():
    keras_model = small_classifier(class_names=CLASSES, num_classes=100)
    rng = np.random.default_rng(0)
    for weight in keras_model.trainable_weights:
        if weight.path.endswith("kernel"):
            weight.assign(rng.normal(0, 0.4, weight.shape))
    # Labels are what the model answers, for nine images of ten: there is something to lose.
    images, _ = pictures(120)
    answers = keras_model.predict(images, verbose=0).argmax(axis=1)
    answers[::10] = (answers[::10] + 1) % 100
    train, test = (Pictures(images[part], answers[part]) for part in np.split(np.arange(120), 2))
    return HeadMeasures(keras_model, train, test, scored_images=20, verbose=0)


@pytest.fixture(scope="module")
def found(measures):
    return measures.scores()


def test_scores_and_agreement_have_all_blocks(found):
    table, agreement = found
    assert list(table) == [1, 2, 3] and len(table.methods) == 11
    assert [row["block"] for row in agreement] == [1] * 3 + [2] * 3 + [3] * 3
    assert {row["pair"] for row in agreement} == {
        "single heads and pursuit", "single heads and maps", "pursuit and maps"
    }  # fmt: skip


def test_curves_are_the_accuracies_of_pruned_models(measures, found):
    table, _ = found
    rows = measures.curves(table, draws=2)
    assert len(rows) == (10 + 2) * len(FRACTIONS)
    for row in rows:
        if (row["score"], row["fraction"]) == ("mask_gradient", 0.5):
            pruned = prune_heads(measures.model, fraction=0.5, by=(table, "mask_gradient"))
            expected = evaluate(pruned, measures.test_data)["accuracy"]
            assert row["accuracy"] == pytest.approx(expected, abs=1e-4) and row["removed"] == 6
            whole = evaluate(measures.model, measures.test_data)["accuracy"]
            assert row["difference"] == pytest.approx(expected - whole, abs=1e-4)
            break
    else:
        pytest.fail("no such row")
    draws = [row["accuracy"] for row in rows if row["score"] == "random"]
    assert draws[: len(FRACTIONS)] != draws[len(FRACTIONS) :]


def test_flips_have_a_row_for_each_superclass(measures):
    rows = measures.flips(draws=2)
    labels, images = measures.test_data.labels, measures.test_data.images
    right = measures.model.predict(images, verbose=0).argmax(axis=1) == labels
    there = [name for number, name in enumerate(SUPERCLASSES) if number in labels // 5]
    assert [row["superclass"] for row in rows] == there
    for row in rows:
        number = list(SUPERCLASSES).index(row["superclass"])
        inside = labels // 5 == number
        assert row["superclass_images"] == np.sum(inside)
        assert row["whole"] == pytest.approx(right[inside].mean(), abs=1e-4)
        assert row["whole_rest"] == pytest.approx(right[~inside].mean(), abs=1e-4)
    assert any(row["chosen_rest"] != row["whole_rest"] for row in rows)
    assert all(len(row["heads"].split()) == 1 for row in rows)  # 5 % of 12, rounded up


def test_agreement_of_the_same_and_of_unlike_views():
    alike = np.kron(np.eye(4), np.ones((4, 4)))
    order = np.random.default_rng(0).permutation(16)
    views = {"one": alike, "same": alike, "other": alike[np.ix_(order, order)]}
    ranks = {"one": np.arange(16), "same": -np.arange(16), "other": np.ones(16)}
    same, other, _ = agreement_rows(views, ranks, permutations=200)
    assert same["rand_index"] == 1 and same["correlation"] == -1
    assert same["rand_p"] == same["correlation_p"] == pytest.approx(1 / 201, abs=1e-4)
    assert same["rand_null_95"] < 0.5 < other["rand_p"] + 0.5
    assert other["correlation"] is None and other["correlation_p"] is None


def test_differences_are_paired():
    before = np.array([True] * 50 + [False] * 50)
    assert difference(before, before)["error"] == 0
    found = difference(np.roll(before, 1), before)
    assert found["difference"] == 0 and found["error"] == pytest.approx(0.0142, abs=1e-4)


def test_nothing_removed_and_not_tuned_is_the_model(measures, found, monkeypatch):
    monkeypatch.setattr(
        "lsmha_keras.evidence.head_measures.FineTuning", lambda *a, **k: lambda m: m
    )
    whole = evaluate(measures.model, measures.test_data)["accuracy"]
    row = measures.tuned(found[0], "any", NONE, 0.0, seed=0, images=20)
    assert row["accuracy"] == row["accuracy_untuned"] == pytest.approx(whole, abs=1e-4)
    assert (row["removed"], row["tuning_images"]) == (0, 20)
    half = measures.tuned(found[0], "any", "mask_gradient", 0.5, seed=0, images=20)
    assert half["removed"] == 6 and half["accuracy"] == half["accuracy_untuned"]
