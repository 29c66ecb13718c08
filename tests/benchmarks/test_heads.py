"""The benchmark of pruned and shared heads measures what it says, and writes it once."""

import csv

import numpy as np
import pytest

from benchmarks import heads
from tests.checks import random_images, to_numpy

pytest.importorskip("scipy", reason='clusters need pip install "lsmha-keras[explain]"')

PARENT = "cct_2_3x2_h8"
SMALL = {"image_shape": (16, 16, 3), "hidden_dim": 16, "mlp_dim": 16, "tokenizer_filters": 4}


def test_the_models_have_half_of_the_heads_and_a_quarter_of_the_maps():
    models = heads.make_models(PARENT, **SMALL)
    assert [found[1:] for found in models.values()] == [
        ("8 8", "8 8"),
        ("4 4", "4 4"),
        ("8 8", "2 2"),
    ]
    whole, pruned, shared = (found[0].backbone for found in models.values())
    assert (whole.num_heads, pruned.num_heads, shared.num_heads) == (8, 4, 8)
    assert pruned.blocks[0].attention.width == whole.blocks[0].attention.width == 2
    images = random_images(2, 16, 16, 3).astype("float32")
    scores = shared.intermediates(["block_1/attention_scores"])(images)
    maps = to_numpy(scores["block_1/attention_scores"])[0]
    assert len(np.unique(np.round(maps, 5), axis=0)) == 2


def test_rows_are_written_once(tmp_path, capsys):
    path = tmp_path / "speed.csv"
    arguments = ["--output", str(path), "--parent", PARENT, "--batch", "1", "2", "--runs", "2"]
    heads.main(arguments, **SMALL)
    with path.open(newline="") as file:
        rows = list(csv.DictReader(file))
    names = [heads.WHOLE, heads.PRUNED, heads.SHARED]
    assert [(row["batch"], row["model"]) for row in rows] == [
        (batch, name) for batch in "12" for name in names
    ]
    for row in rows:
        first = rows[0 if row["batch"] == "1" else 3]
        expected = float(first["p50_ms"]) / float(row["p50_ms"])
        assert float(row["speedup"]) == pytest.approx(expected, rel=0.02)
        assert int(row["multiply_adds"]) <= int(first["multiply_adds"]) and row["machine"]
    assert "half of the heads" in capsys.readouterr().out
    before = path.read_bytes()
    heads.main(arguments)
    assert path.read_bytes() == before and "already" in capsys.readouterr().out


def test_heads_that_cannot_share_evenly_are_named():
    with pytest.raises(ValueError, match=r"multiple of four.*cct_2_3x2_h2 with \[2\]"):
        heads.make_models("cct_2_3x2_h2")
