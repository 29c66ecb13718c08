"""`lsmha zoo heads`: what is there is not measured again; mistakes are named."""

import csv
import types

import pytest

from lsmha_keras import cli
from lsmha_keras.commands import _zoo_heads
from lsmha_keras.evidence import head_measures
from lsmha_keras.shp.head_score_table import HeadScoreTable

pytest.importorskip("sklearn", reason="the digits come with scikit-learn")

PRESET = "cct_2_3x2_h16_cifar100"


@pytest.fixture
def measured(monkeypatch):
    """Counts what is measured; nothing is."""
    seen = []

    class Measures:
        def __init__(self, model, train_data, test_data, scored_images, seed, verbose):
            seen.append((len(test_data), scored_images, seed))

        def scores(self):
            seen.append("scores")
            return HeadScoreTable({0: {"random": [0.5, 0.1]}}), [{"block": 0, "pair": "a and b"}]

        def curves(self, table):
            seen.append("curves")
            return [{"score": "random", "fraction": 0.5, "difference": -0.1, "removed": 1}] * 2

        def flips(self):
            seen.append("flips")
            return [{"superclass": "fish"}]

        def tuned(self, table, preset, score, fraction, seed, images):
            seen.append((score, fraction, seed))
            row = {"score": score, "fraction": fraction, "seed": seed, "tuning_images": images}
            return {**row, "accuracy": 0.5}

    monkeypatch.setattr(head_measures, "HeadMeasures", Measures)
    models = types.SimpleNamespace(from_preset=lambda name: name)
    monkeypatch.setattr("lsmha_keras.models.CCTImageClassifier", models)
    return seen


def arguments(folder, *options):
    options = ["--images", "30", "--tuning-seeds", "1", "--tuning-fractions", "0", "0.5", *options]
    return ["zoo", "heads", PRESET, "--dataset", "digits", "--output", str(folder), *options]


def read(path):
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def test_it_goes_on_where_it_was(measured, tmp_path, capsys):
    assert cli.main(arguments(tmp_path, "--parts", "scores", "curves")) == 0
    assert measured == [(30, 1000, 0), "scores", "curves"]
    assert f"{PRESET}: 2 rows more in {tmp_path / 'curves.csv'}" in capsys.readouterr().out
    measured.clear()
    assert cli.main(arguments(tmp_path)) == 0
    tuned = [("none", 0.0, 0), ("mask_gradient", 0.5, 0), ("random", 0.5, 0)]
    assert measured == [(30, 1000, 0), "flips", *tuned]
    measured.clear()
    # Another seed is missing, and so are other images.
    assert cli.main(arguments(tmp_path, "--tuning-seeds", "2")) == 0
    assert measured[1:] == [(score, fraction, 1) for score, fraction, _ in tuned]
    measured.clear()
    assert cli.main(arguments(tmp_path, "--images", "40", "--parts", "flips")) == 0
    assert measured == [(40, 1000, 0), "flips"]
    rows = read(tmp_path / "tuned.csv")
    assert [(row["score"], row["asked"], row["seed"]) for row in rows] == [
        (score, str(fraction), str(seed))
        for seed in (0, 1)
        for score, fraction in [("none", 0.0), ("mask_gradient", 0.5), ("random", 0.5)]
    ]
    for row in read(tmp_path / "agreement.csv") + rows:
        assert row["preset"] == PRESET and row["backend"] and row["machine"] and row["date"]
        assert row["commit"] == _zoo_heads._commit()


def test_heads_are_scored_before_they_are_removed(measured, tmp_path, capsys):
    assert cli.main(arguments(tmp_path, "--parts", "curves")) == 2
    assert "add `scores` to --parts. Received: --parts curves" in capsys.readouterr().err
    (tmp_path / "flips.csv").write_text("preset,superclass\n")
    assert cli.main(arguments(tmp_path, "--parts", "flips")) == 2
    assert "must have the columns" in capsys.readouterr().err
