"""Recipes of texts and series: the same training, evaluation and presets as for images."""

import csv

import numpy as np
import pytest

import lsmha_keras
from lsmha_keras.models import CCTSequenceClassifier, CCTTextClassifier, load_classifier
from lsmha_keras.training.build_model import build_model
from lsmha_keras.training.recipe import Recipe

SMALL = {"hidden_dim": 8, "mlp_dim": 8, "num_heads": 4}
TEXT = {
    "name": "texts",
    "model": {
        "preset": "text_cct_2_4x1",
        "overrides": {**SMALL, "embedding_dim": 8, "sequence_length": 6, "pooling": "lama"},
    },
    "data": {"name": "questions", "batch_size": 8, "validation_split": "test"},
    "schedule": {"epochs": 8},
    "optimizer": {"learning_rate": 0.02},
}
SERIES = {
    "name": "series",
    "model": {"preset": "series_cct_2_3x1", "overrides": SMALL},
    "data": {"name": "series.npz", "batch_size": 8},
    "schedule": {"epochs": 8},
    "optimizer": {"learning_rate": 0.02},
}


@pytest.fixture
def data_dir(tmp_path):
    """Questions whose first word is the label, and series whose sign is."""
    rng = np.random.default_rng(0)
    (tmp_path / "questions").mkdir()
    for split, count in (("train", 32), ("test", 8)):
        with (tmp_path / "questions" / f"{split}.csv").open("w", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(["label", "text"])
            for i in range(count):
                label = ("who", "where")[i % 2]
                words = rng.choice(["is", "the", "cat", "dog"], 1 + i % 4)
                writer.writerow([label, f"{label} {' '.join(words)} ?"])
    labels = np.arange(40) % 2
    series = rng.normal(size=(40, 5, 3)) + 3 * (2 * labels[:, None, None] - 1)
    parts = {"series_train": series[:32], "y_train": labels[:32]}
    np.savez(tmp_path / "series.npz", **parts, series_test=series[32:], y_test=labels[32:])
    return tmp_path


@pytest.mark.parametrize("recipe", [TEXT, SERIES], ids=lambda recipe: recipe["name"])
def test_a_recipe_trains_and_its_preset_is_evaluated(recipe, data_dir):
    result = lsmha_keras.train(recipe, data_dir / "run", data_dir, verbose=0)
    assert result.results["accuracy"] == 1 and result.results["num_images"] == 8
    preset = data_dir / "run" / "preset"
    name = recipe["data"]["name"]
    figures = lsmha_keras.evaluate(preset, name, data_dir=data_dir)
    assert figures["accuracy"] == 1
    np.testing.assert_allclose(figures["loss"], result.results["loss"], atol=1e-5)
    golden = np.load(preset / "golden.npz")
    model = load_classifier(preset)
    assert type(model) is (CCTTextClassifier if recipe is TEXT else CCTSequenceClassifier)
    logits = model.predict(golden["images"], verbose=0)
    np.testing.assert_allclose(logits, golden["logits"], atol=1e-4)
    card = (preset / "README.md").read_text(encoding="utf-8")
    assert f"lsmha_keras.{type(model).__name__}.from_preset" in card and "image" not in _prose(card)
    # The finished run is not repeated; it is loaded.
    again = lsmha_keras.train(recipe, data_dir / "run", data_dir, verbose=0)
    assert type(again.model) is type(model)
    # A trained preset is where another recipe begins.
    further = {**recipe, "model": {"preset": str(preset)}, "schedule": {"epochs": 1}}
    source = lsmha_keras.open_dataset(name, "train", data_dir)
    start = build_model(Recipe.from_dict(further), source)
    for own, other in zip(start.backbone.weights, model.backbone.weights, strict=True):
        np.testing.assert_array_equal(np.asarray(own), np.asarray(other))


def _prose(card):
    """A card without its metadata, whose tags are those of all presets."""
    return card.split("---\n", 2)[2]


def test_what_recipes_of_sequences_cannot_have(data_dir):
    with pytest.raises(ValueError, match="is for images"):
        lsmha_keras.train({**TEXT, "augmentation": {"flip": True}}, data_dir / "a", data_dir)
    model = {"preset": "cct_2_3x2"}
    with pytest.raises(ValueError, match="for images|of sequences|texts"):
        lsmha_keras.train({**TEXT, "model": model}, data_dir / "b", data_dir, verbose=0)
    with pytest.raises(ValueError, match="model.overrides.image_shape|overrides may be"):
        model = {"preset": "text_cct_2_4x1", "overrides": {"image_shapes": 3}}
        lsmha_keras.train({**TEXT, "model": model}, data_dir / "c", data_dir, verbose=0)


def test_words_that_occur_once_are_unknown(data_dir):
    """Else the embedding of unknown words would stay as it was drawn."""
    with (data_dir / "questions" / "train.csv").open("a", newline="") as file:
        csv.writer(file).writerow(["who", "who is Ada ?"])
    source = lsmha_keras.open_dataset("questions", "train", data_dir)
    model = build_model(Recipe.from_dict(TEXT), source)
    assert "ada" not in model.preprocessor.vocabulary and "cat" in model.preprocessor.vocabulary
    ids = model.preprocessor(source.load([len(source) - 1]))
    assert (ids == 1).sum() == 1


def test_class_weights_are_balanced(data_dir, monkeypatch):
    """Two classes, of which one has three times as many examples: weights 2/3 and 2."""
    from lsmha_keras.training import fit_recipe

    labels = np.array([0, 0, 0, 1] * 4)
    np.savez(data_dir / "series.npz", series=np.ones((16, 5, 3)), y=labels)
    recipe = Recipe.from_dict({**SERIES, "loss": {"class_weights": "balanced"}})
    source = lsmha_keras.open_dataset("series.npz", "train", data_dir)
    weights = fit_recipe.class_weights(recipe, source, None)
    assert weights == {0: pytest.approx(2 / 3), 1: pytest.approx(2)}
    assert np.isclose(sum(weights[label] for label in labels), 16)
    assert fit_recipe.class_weights(Recipe.from_dict(SERIES), source, None) is None
    # They reach the loss: of constant series the model can learn the classes' weights only.
    split = {**SERIES["data"], "test_split": "train", "batch_size": 16}
    values = {**recipe.to_dict(), "data": split, "schedule": {"epochs": 30}}
    model = lsmha_keras.train(values, data_dir / "weighted", data_dir, verbose=0).model
    logits = model.predict(np.ones((1, 5, 3), "float32"), verbose=0)[0]
    np.testing.assert_allclose(logits[0], logits[1], atol=0.2)


def test_the_mean_accuracy_of_classes_is_reported(data_dir):
    from lsmha_keras.training.evaluate import class_report

    class Constant:
        output_shape, class_names = (None, 2), None

        def predict(self, series, batch_size, verbose):
            return np.tile([1.0, 0.0], (len(series), 1))

    report = class_report(Constant(), (np.ones((8, 5, 3), "float32"), np.array([0] * 6 + [1] * 2)))
    assert report.figures["accuracy"] == 0.75 and report.figures["macro_accuracy"] == 0.5
