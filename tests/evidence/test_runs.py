"""From the directory of a training run to a row, and from rows to a table."""

import csv

import pytest

from lsmha_keras.evidence.runs import COLUMNS, UnfinishedRunError, merge_runs, run_row
from lsmha_keras.presets import list_presets
from tests.evidence.runs import CONFIG, write_run

pytestmark = pytest.mark.backend_free


def read(path):
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def test_row_of_a_finished_run(tmp_path):
    row = run_row(write_run(tmp_path / "run", seed=7))
    assert tuple(sorted(row)) == tuple(sorted(COLUMNS))
    assert row == {
        "name": "mine",
        "layout": "cct_2_3x2_h25x5_c1",
        "heads": "25",
        "head_dim": "5",
        "conv_blocks": 1,
        "design": "rep",
        "start": "random",
        "epochs": 3,
        "seed": 7,
        "augmentation": "flip True",
        "dataset": "cifar100",
        "split": "test",
        "num_images": 10000,
        "accuracy": "0.5000",
        "top5_accuracy": "0.7500",
        "loss": "1.2346",
        "parameters": 1000,
        "train_seconds": 60.5,
        "backend": "jax",
        "precision": "float32",
        "machine": "a machine, 2 cores",
        "versions": "python=3.11 keras=3.15",
        "date": "2026-01-31",
    }


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"num_heads": 2, "head_dim": None}, ("cct_2_3x2", "2", "64", "")),
        ({"num_heads": 16, "head_dim": None}, ("cct_2_3x2_h16", "16", "8", "")),
        (
            {"num_heads": [4, 8], "head_dim": [None, 5], "position_embedding": "sine"},
            ("cct_2_3x2_sine_h4-8x-5", "4 8", " 5", ""),
        ),
        ({"num_conv_blocks": 2}, ("cct_2_3x2_c2", "", "", "rep")),
    ],
)
def test_structure_comes_from_the_config(changes, expected, tmp_path):
    config = {**CONFIG, "num_conv_blocks": 0, **changes}
    row = run_row(write_run(tmp_path / "run", config=config))
    assert (row["layout"], row["heads"], row["head_dim"], row["design"]) == expected


@pytest.mark.parametrize("info", list_presets(architectures=False), ids=lambda info: info.name)
def test_shipped_presets_have_rows(info):
    row = run_row(info.path)
    assert info.name.startswith(row["layout"])
    assert float(row["accuracy"]) == pytest.approx(info.accuracy / 100, abs=5e-5)


@pytest.mark.parametrize("epochs", [0, 2])
def test_unfinished_runs_say_how_far_they_are(epochs, tmp_path):
    run = write_run(tmp_path / "run", epochs=epochs)
    with pytest.raises(UnfinishedRunError, match=f"epoch {epochs} of 3.*Received: {run}"):
        run_row(run)


def test_other_folders_are_no_runs(tmp_path):
    with pytest.raises(ValueError, match=f"with a recipe.toml. Received: {tmp_path}"):
        run_row(tmp_path)


def test_a_run_has_one_row(tmp_path):
    table = tmp_path / "layouts.csv"
    first = [write_run(tmp_path / f"run{seed}", seed=seed) for seed in range(2)]
    merge_runs(table, [run_row(run) for run in first])
    again = write_run(tmp_path / "again", seed=0, accuracy=0.625)
    other = write_run(tmp_path / "other", name="other", seed=0)
    merge_runs(table, [run_row(again), run_row(other)])
    keys = ("name", "seed", "accuracy")
    assert [tuple(row[key] for key in keys) for row in read(table)] == [
        ("mine", "0", "0.6250"),
        ("mine", "1", "0.5000"),
        ("other", "0", "0.5000"),
    ]


def test_another_table_is_left_alone(tmp_path):
    table = tmp_path / "other.csv"
    table.write_text("a,b\n1,2\n")
    with pytest.raises(ValueError, match="must have the columns name, layout.*Received: a, b"):
        merge_runs(table, [])
    assert table.read_text() == "a,b\n1,2\n"
