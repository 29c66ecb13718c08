"""The attention benchmark runs every layer and writes what it measures."""

import csv

import keras

from lsmha_keras.benchmark import attention


def test_one_row_for_each_layer_and_phase(tmp_path):
    path = tmp_path / "attention.csv"
    sizes = ["--batch", "2", "--tokens", "9", "--heads", "4"]
    attention.main(["--output", str(path), *sizes, "--runs", "2"])
    rows = list(csv.DictReader(path.open()))
    layers = {"ours", "keras.layers.MultiHeadAttention"}
    if keras.config.backend() == "torch":
        layers.add("torch.nn.MultiheadAttention")
    for phase in ("inference", "training"):
        assert {row["layer"] for row in rows if row["phase"] == phase} == layers
    assert len(rows) == 2 * len(layers)
    for row in rows:
        own = [r for r in rows if r["phase"] == row["phase"] and r["layer"] == "ours"][0]
        ratio = float(row["median_ms"]) / float(own["median_ms"])
        assert abs(float(row["ratio_to_ours"]) - ratio) < 0.01 * ratio + 0.006
        assert float(row["fastest_ms"]) <= float(row["median_ms"]) <= float(row["slowest_ms"])
