"""Deletion and insertion curves: planted reasons, and the areas under curves by hand."""

import csv

import numpy as np
import pytest

import lsmha_keras as lsmha
from lsmha_keras.errors import InputError
from lsmha_keras.heads.curves import ExplanationCurves
from tests.heads.models import classifier
from tests.shp.models import pictures


class Bright:
    """Stands for a classifier of two classes that looks at the upper left cell alone."""

    image_shape = (8, 8, 1)
    backbone = pooler = preprocessor = None

    class _Layer:
        grid_shape = (2, 2)

    def __init__(self):
        self.backbone = type(
            "Backbone", (), {"position_embedding_layer": self._Layer, "blocks": ()}
        )

    def predict(self, images, **options):
        logit = np.asarray(images)[:, :4, :4].mean(axis=(1, 2, 3)) - 100
        return np.stack([-logit, logit], axis=1) / 20

    def probabilities(self, outputs):
        return np.exp(outputs) / np.exp(outputs).sum(axis=1, keepdims=True)


@pytest.mark.backend_free
def test_occlusion_finds_the_planted_cell_at_once():
    images = np.zeros((6, 8, 8, 1), "uint8")
    images[:, :4, :4] = 200
    data = (images, np.ones(6, int))
    curves = lsmha.explanation_curves(Bright(), data, ["occlusion", "random"], steps=4, verbose=0)
    low, high = 1 / (1 + np.exp(5)), 1 / (1 + np.exp(-10))
    # The mean colour, 50, makes the cell dark.
    np.testing.assert_allclose(curves.deletion["occlusion"], [[high] + 4 * [low]] * 6, rtol=1e-6)
    np.testing.assert_allclose(curves.insertion["occlusion"], [[low] + 4 * [high]] * 6, rtol=1e-6)
    # Random orders start and end at the same places, and change at the step the cell is drawn.
    random = curves.deletion["random"]
    np.testing.assert_allclose(random[:, [0, 4]], [[high, low]] * 6, rtol=1e-6)
    np.testing.assert_allclose(random + curves.insertion["random"], high + low, rtol=1e-6)
    assert random.mean() > curves.deletion["occlusion"].mean()


@pytest.mark.backend_free
def test_areas_by_hand(tmp_path):
    falling = {"occlusion": np.array([[1.0, 0.5, 0.0], [1.0, 0.0, 0.0]])}
    rising = {"occlusion": np.array([[0.0, 1.0, 1.0], [0.0, 1.0, 1.0]])}
    curves = ExplanationCurves(np.array([0, 0.5, 1]), falling, rising)
    curves.save(tmp_path / "curves.csv")
    with open(tmp_path / "curves.csv", encoding="utf-8") as file:
        (row,) = csv.DictReader(file)
    assert row == {
        "method": "occlusion",
        "num_images": "2",
        "deletion": "0.375",  # of 0.5 and 0.25, which are 0.125 from it
        "deletion_error": "0.125",
        "insertion": "0.75",
        "insertion_error": "0.0",
    }


def test_all_methods_start_and_end_alike():
    model = classifier()
    curves = lsmha.explanation_curves(model, pictures(3), steps=4, verbose=0, max_images=2)
    probability = model.probabilities(model.predict(pictures(3)[0], verbose=0)).max(axis=1)
    assert set(curves.deletion) == {
        *("rollout", "flow", "relevance"),
        "maps",
        "occlusion",
        "random",
    }
    for method, deletion in curves.deletion.items():
        insertion = curves.insertion[method]
        assert deletion.shape == insertion.shape == (2, 5)
        assert all(np.isclose(probability, p, atol=1e-5).any() for p in deletion[:, 0])
        np.testing.assert_allclose(deletion[:, 0], insertion[:, -1], atol=1e-5)
        np.testing.assert_allclose(deletion[:, -1], insertion[:, 0], atol=1e-5)


@pytest.mark.backend_free
def test_unknown_methods_are_named():
    with pytest.raises(InputError, match=r"nearest: random\).*Received: method='rando'"):
        lsmha.explanation_curves(Bright(), pictures(1), ["rando"])
