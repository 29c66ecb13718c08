"""The data benchmark runs and writes what it measures."""

import csv

import keras
import pytest

from benchmarks import data as benchmark
from lsmha_keras.data.pipelines import has_tensorflow

pytestmark = pytest.mark.backend_free


@pytest.mark.skipif(
    keras.backend.backend() == "jax",
    reason="Keras's RandAugment, the peer, takes two minutes to trace in tf.data under jax",
)
def test_benchmark_writes_one_row_for_each_pipeline(tmp_path, capsys):
    path = tmp_path / "speed.csv"
    arguments = ["--output", str(path), "--runs", "2", "--images", "128", "--batch-size", "64"]
    benchmark.main(arguments)
    rows = list(csv.DictReader(path.open()))
    names = [row["pipeline"] for row in rows]
    assert "RandAugment (without tf.data)" in names and len(set(names)) == len(names)
    assert all(row["runs"] == "2" and row["batch_size"] == "64" for row in rows)
    for row in rows:
        speed = int(row["images_per_second"])
        assert 0 < int(row["slowest_run"]) <= speed <= int(row["fastest_run"])
    if has_tensorflow():
        [peer] = [row for row in rows if row["pipeline"] == "keras.layers.RandAugment"]
        for row in rows:
            ratio = int(row["images_per_second"]) / int(peer["images_per_second"])
            assert abs(float(row["ratio_to_keras_rand_augment"]) - ratio) < 0.01 * ratio + 0.01
    assert "crop + flip + MixUp/CutMix" in capsys.readouterr().out
