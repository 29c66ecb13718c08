"""What zoo/HEADS.md concludes is what the csv files say."""

import statistics

import pytest

from lsmha_keras.commands._zoo_heads import COLUMNS
from lsmha_keras.presets import zoo_dir
from lsmha_keras.text_files import read_rows
from tools.evidence.head_tables import LOSS

pytestmark = pytest.mark.backend_free

PRESETS = {
    "cct_2_3x2_h16_cifar100": "cct_2_3x2_h16_cifar100",
    "lsmha-small": "cct_4_3x2_ib_h16_c2_cifar100_65_epochs",
}


def read(part):
    return read_rows(zoo_dir() / "results" / "heads" / f"{part}.csv", COLUMNS[part])


@pytest.fixture(scope="module")
def text():
    return " ".join((zoo_dir() / "HEADS.md").read_text(encoding="utf-8").split())


@pytest.fixture(scope="module")
def lost():
    """Points lost: {preset: {share: {score: mean over draws}}}."""
    found = {}
    for row in read("curves"):
        shares = found.setdefault(row["preset"], {}).setdefault(float(row["fraction"]), {})
        shares.setdefault(row["score"], []).append(-100 * float(row["difference"]))
    return {
        preset: {
            share: {score: statistics.mean(values) for score, values in scores.items()}
            for share, scores in shares.items()
        }
        for preset, shares in found.items()
    }


def lowest(scores):
    return set(sorted(scores, key=scores.get)[:2])


def test_no_score_finds_heads_that_cost_nothing(text, lost):
    assert "even an eighth of them costs more" in text
    for preset in PRESETS.values():
        assert min(lost[preset][0.125].values()) > LOSS


def test_mask_gradient_and_offset_lose_least(text, lost):
    assert "the mask gradient and the offset lose least in both" in text
    assert "In the preset with two blocks they do so at every share" in text
    for preset in PRESETS.values():
        assert lowest(lost[preset][0.5]) == {"mask_gradient", "offset"}
    two_blocks = lost[PRESETS["cct_2_3x2_h16_cifar100"]]
    for scores in two_blocks.values():
        assert lowest(scores) == {"mask_gradient", "offset"}
        assert scores["output_redundancy"] > scores["random"]
    assert "output redundancy loses more than random heads at every share" in text
    assert "labels on SHP clusters from three eighths on" in text
    for share in (0.375, 0.5, 0.75):
        assert two_blocks[share]["shp_coverage"] > two_blocks[share]["random"]


def test_scores_are_close_in_small(text, lost):
    assert "no score differs from random by more than 2.0 points" in text
    small = lost[PRESETS["lsmha-small"]]
    for share in (0.125, 0.25, 0.375, 0.5):
        random = small[share]["random"]
        assert all(abs(value - random) <= 2.0 for value in small[share].values())


def test_views_that_agree(text):
    rows = [row for row in read("agreement") if row["preset"] in PRESETS.values()]
    alike = [row["pair"] for row in rows if float(row["rand_p"]) < 0.05]
    assert f"are more alike than chance in {len(alike)} of the 4 blocks" in text
    assert set(alike) == {"single heads and pursuit"}
    (ranks,) = (row for row in rows if float(row["correlation_p"] or 1) < 0.05)
    assert ranks["pair"] == "single heads and pursuit" and float(ranks["correlation"]) < 0
    assert "the one ranking that is tied to another is tied the wrong way round" in text


def test_errors_are_as_the_text_says(text):
    errors = [100 * float(row["error"]) for row in read("curves")]
    assert f"at most {max(errors):.1f} points" in text


def test_a_short_tuning_evens_scores_out(text):
    rows = {
        row["score"]: (100 * float(row["accuracy_untuned"]), 100 * float(row["accuracy"]))
        for row in read("tuned")
        if (row["preset"], row["seed"], row["asked"]) == ("cct_2_3x2_h16_cifar100", "0", "0.25")
    }
    (before, after), (ranked, tuned) = rows["random"], rows["mask_gradient"]
    assert f"random heads from {before:.2f} to {after:.2f} %" in text
    assert f"lowest mask gradient from {ranked:.2f} to {tuned:.2f} %" in text
    assert ranked - before > 5 and 0 < tuned - after < 0.5
    assert "What a score gains before tuning is almost gone after it" in text


def points_lost(preset):
    """Points that each superclass loses, and the rest: {kind: (list, list)}."""
    rows = [row for row in read("flips") if row["preset"] == preset]
    return {
        kind: [
            [100 * (float(row[f"whole{part}"]) - float(row[f"{kind}{part}"])) for row in rows]
            for part in ("", "_rest")
        ]
        for kind in ("chosen", "random")
    }


def test_pursued_heads_are_not_a_superclasss_own(text):
    lost = points_lost("cct_2_3x2_h16_cifar100")
    own, rest = map(statistics.mean, lost["chosen"])
    assert f"lose {own:.2f} points and all others {rest:.2f}" in text
    more = sum(map(float.__gt__, *lost["chosen"]))
    assert f"only {more} of 20 superclasses lose more than the rest" in text
    assert "They matter more than random heads of their blocks, to all images" in text
    random = list(map(statistics.mean, lost["random"]))
    assert own > random[0] and rest > random[1]


def test_those_of_small_are_closer_to_it(text):
    lost = points_lost(PRESETS["lsmha-small"])
    own, rest = map(statistics.mean, lost["chosen"])
    assert f"the superclass loses {own:.2f} points and the rest {rest:.2f}" in text
    assert "no more than with random heads" in text
    assert rest <= statistics.mean(lost["random"][1])
    more = sum(map(float.__gt__, *lost["chosen"]))
    assert f"{more} of 20 lose more than the rest" in text


def test_what_fewer_heads_and_maps_save(text):
    rows = read_rows(zoo_dir() / "results" / "head_speed.csv", ["speedup"])
    speedups = {(r["backend"], r["batch"], r["model"]): round(float(r["speedup"]), 1) for r in rows}
    backends = ("jax", "tensorflow")
    assert "Half of the heads make the model 1.5 times as fast on JAX and TensorFlow" in text
    halves = {speedups[b, batch, "half of the heads"] for b in backends for batch in ("1", "64")}
    assert halves == {1.5}
    assert "Sharing maps gains more on TensorFlow, 1.7" in text
    assert {speedups["tensorflow", b, "a quarter of the maps"] for b in ("1", "64")} == {1.7}
    assert "On PyTorch it loses time at batch 1" in text
    assert speedups["torch", "1", "a quarter of the maps"] < 1
    assert ("torch", "64", "whole") not in speedups and "not measured on PyTorch" in text
