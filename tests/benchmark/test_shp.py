"""The benchmark of single-head performance runs everything and writes what it measures."""

import csv

from lsmha_keras.benchmark import shp


def test_one_row_for_each(tmp_path):
    path = tmp_path / "shp.csv"
    shp.main(["--output", str(path), "--images", "32", "--batch-size", "16", "--runs", "2"])
    rows = list(csv.DictReader(path.open()))
    assert [row["what"] for row in rows] == [
        "model.predict",
        "SHP of all heads, recomputed",
        "SHP of all heads, recomputed and frozen",
        "an epoch of fitting the readouts of all blocks",
        "one forward pass per head, others masked",
    ]
    predict = float(rows[0]["median_s_per_10000"])
    for row in rows:
        ratio = float(row["median_s_per_10000"]) / predict
        assert abs(float(row["ratio_to_predict"]) - ratio) < 0.01 * ratio
        assert (
            float(row["fastest_s"]) <= float(row["median_s_per_10000"]) <= float(row["slowest_s"])
        )
