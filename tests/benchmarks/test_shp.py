"""The benchmark of single-head performance measures and writes every case."""

import csv
import multiprocessing.pool
import types

import pytest

import lsmha_keras
from benchmarks import shp

PREDICT, SHP = "model.predict", "SHP of all heads, recomputed"
TRAINING = "training without augmentation"


@pytest.fixture(scope="module")
def preset(tmp_path_factory):
    backbone = lsmha_keras.CCTBackbone(
        (16, 16, 3), hidden_dim=8, num_layers=1, num_heads=2, mlp_dim=8, tokenizer_filters=8
    )
    preprocessor = lsmha_keras.CCTImageClassifierPreprocessor(
        lsmha_keras.CCTImageConverter(image_size=(16, 16), scale=1 / 255)
    )
    path = tmp_path_factory.mktemp("preset") / "tiny"
    lsmha_keras.CCTImageClassifier(backbone, 10, preprocessor).save_to_preset(path)
    return str(path)


@pytest.fixture
def options(preset, tmp_path):
    sizes = ["--images", "32", "--batch-size", "16", "--runs", "2"]
    return ["--output", str(tmp_path / "shp.csv"), "--preset", preset, *sizes]


def test_one_row_for_each(options):
    shp.main([*options, "--no-memory"])
    with open(options[1], newline="") as file:
        rows = list(csv.DictReader(file))
    assert {row["what"]: row["compared_with"] for row in rows} == {
        PREDICT: "",
        SHP: PREDICT,
        "SHP of all heads, recomputed and frozen": PREDICT,
        "an epoch of fitting the readouts of all blocks": PREDICT,
        "one forward pass per head, others masked": SHP,
        TRAINING: PREDICT,
        "the callback, once per 50,000 images": TRAINING,
    }
    medians = {row["what"]: float(row["median_s_per_10000"]) for row in rows}
    for row in rows:
        assert float(row["fastest_s"]) <= medians[row["what"]] <= float(row["slowest_s"])
        if other := row["compared_with"]:
            ratio = medians[row["what"]] / medians[other]
            assert float(row["ratio"]) == pytest.approx(ratio, rel=0.02, abs=0.002)
            assert float(row["ratio_min"]) <= float(row["ratio_max"])


def test_memory_of_few_and_of_many_images(preset, monkeypatch):
    """A thread replaces the separate process."""
    seen = []

    def peak_mib(function):
        seen.append(function()["recomputed"][0].label_counts.sum())
        return 12.34

    context = types.SimpleNamespace(Pool=multiprocessing.pool.ThreadPool)
    monkeypatch.setattr(shp.multiprocessing, "get_context", lambda method: context)
    monkeypatch.setattr(shp, "peak_mib", peak_mib)
    rows = shp.measure_memory(preset, num_images=50, batch_size=16)
    assert [(row["images"], row["peak_mib"]) for row in rows] == [(5, 12.3), (50, 12.3)]
    assert seen == [5, 50]
