import csv

import pytest

from benchmarks.sequences import BASELINES, SERIES_BASELINE, main, measure_baseline
from lsmha_keras.text_files import read_rows

RECIPE = """
name = "tiny"
[model]
preset = "text_cct_2_4x1"
[model.overrides]
hidden_dim = 8
mlp_dim = 8
embedding_dim = 8
sequence_length = 6
[data]
name = "questions"
batch_size = 8
[schedule]
epochs = 1
"""


@pytest.fixture
def data_dir(tmp_path):
    """The label says whether "cat" stands before "dog": no bag of words can tell."""
    pytest.importorskip("sklearn")
    (tmp_path / "questions").mkdir()
    texts = [
        ("yes", "the cat dog"),
        ("no", "the dog cat"),
        ("yes", "a cat dog"),
        ("no", "a dog cat"),
    ]
    for split in ("train", "test"):
        with (tmp_path / "questions" / f"{split}.csv").open("w", newline="") as file:
            csv.writer(file).writerows([("label", "text"), *texts * 4])
    return tmp_path


def test_pairs_of_words_tell_their_order(data_dir):
    words, pairs = (measure_baseline(name, "questions", data_dir=data_dir) for name in BASELINES)
    assert words["accuracy"] == words["macro_accuracy"] == 0.5 and pairs["accuracy"] == 1
    # A weight for each of "a", "the", "cat", "dog", and one of the whole; two classes share them.
    assert words["parameters"] == 5 and words["num_texts"] == 16
    assert pairs["parameters"] == 4 + 6 + 1


def test_the_table_gets_a_row_for_each_case(data_dir, monkeypatch):
    monkeypatch.chdir(data_dir)
    (data_dir / "tiny.toml").write_text(RECIPE)
    arguments = ["tiny.toml", "--heads", "2", "4", "--data-dir", ".", "--output", "rows.csv"]
    main(arguments)
    rows = read_rows(data_dir / "rows.csv", ["accuracy", "model"])
    assert [(row["model"], row["heads"], row["seed"]) for row in rows] == [
        ("linear, words", "", ""),
        ("linear, words and pairs", "", ""),
        ("tiny", "2", "0"),
        ("tiny", "4", "0"),
    ]
    assert all(0 <= float(row["accuracy"]) <= 1 for row in rows)
    before = (data_dir / "rows.csv").read_bytes()
    main(arguments)  # it holds all of them, and then the same settings with a CNN, without heads
    assert (data_dir / "rows.csv").read_bytes() == before
    main([*arguments, "--presets", "text_cct_2_4x1_c2"])
    *others, last = read_rows(data_dir / "rows.csv", ["accuracy", "model"])
    assert len(others) == 4
    assert (last["model"], last["heads"]) == ("text_cct_2_4x1_c2_questions", "")


def test_a_linear_model_of_series():
    pytest.importorskip("sklearn")
    found = measure_baseline(SERIES_BASELINE, "digits_series")
    # Ten classes of 64 values; linear models of digits reach more than nine in ten.
    assert found["parameters"] == 10 * 65 and found["accuracy"] > 0.9


def test_the_cnn_costs_what_the_transformer_costs():
    """The two recipes that docs/sequences.md compares, with the words of TREC."""
    from lsmha_keras.benchmark.multiply_adds import count_multiply_adds
    from lsmha_keras.models import CCTTextClassifier
    from lsmha_keras.training.recipe import load_recipe

    counts = []
    for name in ("text_cct_2_2x1_h16_trec", "text_cct_4_2x1_c4_trec"):
        section = load_recipe(name).model
        arguments = {**section.overrides, "vocabulary_size": 100, "num_classes": 6}
        model = CCTTextClassifier.from_preset(section.preset, **arguments)
        counts.append(count_multiply_adds(model))
    assert abs(counts[1] / counts[0] - 1) < 0.15, counts
