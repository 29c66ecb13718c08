"""Tables about heads: figures by hand; and the page is what the csv files give."""

import pytest

from lsmha_keras.commands._zoo_heads import COLUMNS
from lsmha_keras.presets import zoo_dir
from lsmha_keras.text_files import write_rows
from tools.evidence.head_tables import TABLES
from tools.evidence.tables import evidence_text

pytestmark = pytest.mark.backend_free


def write(folder, part, rows):
    (folder / "heads").mkdir(exist_ok=True)
    write_rows(folder / "heads" / f"{part}.csv", rows, COLUMNS[part])


def test_curves_are_means_over_draws_and_the_most_heads_end_at_the_first_loss(tmp_path):
    losses = {
        ("shp_coverage", 0): {4: -0.004, 8: -0.02, 12: -0.001},
        ("random", 0): {4: -0.01, 8: -0.03, 12: -0.04},
        ("random", 1): {4: 0.004, 8: -0.01, 12: -0.08},
    }
    rows = [
        {"preset": "a", "score": score, "draw": draw, "removed": removed}
        | {"fraction": removed / 32, "difference": difference}
        for (score, draw), found in losses.items()
        for removed, difference in found.items()
    ]
    write(tmp_path, "curves", rows)
    lines = TABLES["H1"](tmp_path).splitlines()
    assert lines[0].startswith("| preset | score | 12.5 % gone | 25 % gone | 37.5 % gone |")
    # 0.1 points with 12 heads gone do not count: 8 have cost too much before.
    assert lines[2] == "| a | shp_coverage | 0.40 | 2.00 | 0.10 | 4 |"
    assert lines[3] == "| a | random | 0.30 | 2.00 | 6.00 | 4 |"


def test_fine_tuned_models_are_means_over_seeds(tmp_path):
    rows = [
        {"preset": "a", "score": score, "removed": 8, "tuning_images": 5120, "seed": seed}
        | {"accuracy_untuned": 0.5, "accuracy": accuracy}
        for score, seed, accuracy in [("x", 0, 0.6), ("x", 1, 0.62), ("random", 0, 0.55)]
    ]
    write(tmp_path, "tuned", rows)
    lines = TABLES["H2"](tmp_path).splitlines()
    assert lines[2] == "| a | x | 8 | 5,120 | 2 | 50.00 | 61.00 | 1.41 |"
    assert lines[3] == "| a | random | 8 | 5,120 | 1 | 50.00 | 55.00 |  |"


def test_flips_count_superclasses(tmp_path):
    common = {"preset": "a", "heads": "1/3 1/4", "whole": 0.8, "whole_rest": 0.7}
    rows = [
        {"chosen": 0.6, "chosen_rest": 0.6, "random": 0.7, "random_rest": 0.68},
        {"chosen": 0.7, "chosen_rest": 0.5, "random": 0.75, "random_rest": 0.7},
    ]
    write(tmp_path, "flips", [{**common, **row} for row in rows])
    (line,) = TABLES["H3"](tmp_path).splitlines()[2:]
    assert line == "| a | 2 | 2 | 15.00 | 15.00 | 7.50 | 1.00 | 1 of 2 | 2 of 2 |"


def test_a_ranking_that_is_constant_has_no_correlation(tmp_path):
    row = {"preset": "a", "block": 1, "pair": "x and y", "clusters": 4}
    row |= {"rand_index": 0.2, "rand_p": 0.049}
    write(tmp_path, "agreement", [row])
    assert TABLES["H4"](tmp_path).splitlines()[2:] == [
        "| a | 1 | x and y | 4 | 0.20 | 0.05 |  |  |"
    ]


def test_speed_has_one_row_for_each_model(tmp_path):
    row = {"backend": "jax", "parent": "p", "batch": 1, "heads": "8 8", "maps": "2 2"}
    row |= {"p50_ms": 1234.56, "p90_ms": 1300, "speedup": 1.5, "note": ""}
    write_rows(tmp_path / "head_speed.csv", [row])
    (line,) = TABLES["H5"](tmp_path).splitlines()[2:]
    assert line == "| p | jax | 1 | 8 | 2 | 1,234.6 (1,300.0) | 1.50 |"


def test_the_page_is_what_the_csv_files_give():
    text = (zoo_dir() / "HEADS.md").read_text(encoding="utf-8")
    assert text == evidence_text(text, zoo_dir() / "results", TABLES), "run `lsmha zoo evidence`"
