"""Searches of text models, with single-head performance while they are learnt."""

import csv

import numpy as np
import pytest

import lsmha_keras as lsmha
from tests.shp.texts import NAMES, questions

pytest.importorskip("keras_tuner", reason='searches need pip install "lsmha-keras[tune]"')


def test_a_study_of_text_models_measures_their_heads(tmp_path):
    texts, labels = questions(40)
    with open(tmp_path / "questions.csv", "w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["label", "text"])
        writer.writerows((NAMES[k], text) for text, k in zip(texts, labels, strict=True))
    study = {
        "name": "questions",
        "recipe": {
            "model": {
                "preset": "text_cct_2_4x1",
                "overrides": {"hidden_dim": 16, "mlp_dim": 16, "sequence_length": 9},
            },
            "data": {
                "name": str(tmp_path / "questions.csv"),
                "train_split": "train[:32]",
                "validation_split": "train[32:]",
                "batch_size": 16,
            },
            "schedule": {"epochs": 1},
        },
        "space": {"num_heads": [2, 4]},
        "tuner": {"name": "GridSearch", "max_trials": 2},
        "shp": {"enabled": True, "max_images": 16},
    }
    result = lsmha.search(study, output_dir=tmp_path / "study", verbose=0)
    rows = result.rows
    assert {row["status"] for row in rows} == {"completed"}
    assert sorted(int(row["hp.num_heads"]) for row in rows) == [2, 4]
    assert np.isfinite([float(row["shp_readout_accuracy"]) for row in rows]).all()
    assert result.recipe().model.preset == "text_cct_2_4x1"


def test_a_hypermodel_of_series_and_of_texts():
    keras_tuner = pytest.importorskip("keras_tuner")
    small = {"hidden_dim": 8, "mlp_dim": 8}
    space = {"num_heads": [2, 4]}
    series = lsmha.CCTHyperModel(
        space, 3, "series_cct_2_3x1", overrides={**small, "sequence_length": 8, "num_features": 2}
    ).build(keras_tuner.HyperParameters())
    assert type(series) is lsmha.CCTSequenceClassifier
    assert series.predict(np.zeros((1, 8, 2), "float32"), verbose=0).shape == (1, 3)
    preprocessor = lsmha.CCTTextClassifierPreprocessor.from_texts(questions()[0], 9)
    texts = lsmha.CCTHyperModel(
        space, 3, "text_cct_2_4x1", overrides={**small, "preprocessor": preprocessor}
    ).build(keras_tuner.HyperParameters())
    assert texts.predict("who is the king", verbose=0).shape == (1, 3)
