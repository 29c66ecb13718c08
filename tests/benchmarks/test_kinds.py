"""The study of kinds of attention: one row for each kind, and none twice."""

import csv

from benchmarks import kinds
from lsmha_keras.training.settings import to_toml_text
from tests.training.tiny import CLASSES, recipe_dict, write_dataset
from tools.evidence.kind_tables import accuracy_table


def test_a_row_for_each_kind_and_none_twice(tmp_path, capsys):
    data = write_dataset(tmp_path / "tiny.npz", train=32, test=16)
    recipe = recipe_dict(data)
    recipe["model"]["overrides"]["num_conv_blocks"] = 0
    (tmp_path / "tiny.toml").write_text(to_toml_text(recipe))
    output = tmp_path / "kinds.csv"
    arguments = ["--output", str(output), "--runs-dir", str(tmp_path / "runs"), "--epochs", "2"]
    arguments += ["--recipe", str(tmp_path / "tiny.toml"), "--only", "grouped", "eit"]
    kinds.main(arguments)
    assert capsys.readouterr().out.count("seed 0:") == 2
    with output.open(newline="") as file:
        rows = {row["attention"]: row for row in csv.DictReader(file)}
    assert list(rows) == ["grouped", "eit"]
    for row in rows.values():
        assert (row["epochs"], row["train_split"]) == ("2", "train[:50%]")
        assert 0 <= float(row["accuracy"]) <= 1
        assert 0 <= float(row["coverage"]) <= 4 and 0 <= float(row["noise_per_head"])
        assert 0 <= float(row["clusters_per_head"]) <= CLASSES
    more = int(rows["eit"]["parameters"]) - int(rows["grouped"]["parameters"])
    # Two blocks of 16 wide tokens and four heads: keys and values, and two interactions.
    assert more == 2 * (2 * 16 * (16 - 4) + 2 * 2 * 4 * 4)
    assert "| `eit` |" in accuracy_table(tmp_path)
    kinds.main(arguments)
    assert not capsys.readouterr().out
