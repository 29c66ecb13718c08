import csv

import pytest

from benchmarks.sequences import BASELINES, main, measure_baseline
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
    main(arguments)  # it holds all of them
    assert (data_dir / "rows.csv").read_bytes() == before
