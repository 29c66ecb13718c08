"""What zoo/HEADS.md concludes is what the csv files say."""

import statistics

import numpy as np
import pytest

from lsmha_keras.commands._zoo_heads import COLUMNS
from lsmha_keras.presets import ALIASES, zoo_dir
from lsmha_keras.text_files import read_rows
from tools.evidence.head_tables import LOSS

pytestmark = pytest.mark.backend_free

H16, H32 = "cct_2_3x2_h16_cifar100", "cct_2_3x2_h32_cifar100"
SMALL, BASE = (ALIASES[f"lsmha-{size}"] for size in ("small", "base"))
TWO_BLOCKS = (H16, H32, SMALL)


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


def test_half_of_the_heads_of_base_can_go(text, lost):
    half = lost[BASE][0.5]
    assert "half of the heads can go for nothing" in text
    assert half["mask_gradient"] <= 0 and half["map_redundancy"] <= LOSS
    assert f"accuracy is {-half['mask_gradient']:.2f} points higher (within the error)" in text
    assert f"the 40 most redundant maps {half['map_redundancy']:.2f} lower" in text
    assert f"40 random heads cost {half['random']:.2f} points" in text
    labels, signals = half["shp_coverage"], half["shp_snr"]
    assert f"clusters cost {labels:.2f} points, those with the lowest" in text
    assert f"signal-to-noise ratio {signals:.2f}." in text
    (removed,) = {
        int(row["removed"])
        for row in read("curves")
        if (row["preset"], row["fraction"]) == (BASE, "0.5")
    }
    assert removed == 40


def test_no_score_finds_heads_that_cost_nothing_in_two_blocks(text, lost):
    assert "even an eighth of them costs more" in text
    for preset in TWO_BLOCKS:
        assert min(lost[preset][0.125].values()) > LOSS


def test_mask_gradient_and_offset_lose_least(text, lost):
    assert "the mask gradient and the offset lose least in all three" in text
    assert "In `cct_2_3x2_h16_cifar100` they do so at every share" in text
    for preset in TWO_BLOCKS:
        assert lowest(lost[preset][0.5]) == {"mask_gradient", "offset"}
    two_blocks = lost[H16]
    for scores in two_blocks.values():
        assert lowest(scores) == {"mask_gradient", "offset"}
        assert scores["output_redundancy"] > scores["random"]
    assert "output redundancy loses more than random heads at every share" in text
    assert "labels on SHP clusters from three eighths on" in text
    for share in (0.375, 0.5, 0.75):
        assert two_blocks[share]["shp_coverage"] > two_blocks[share]["random"]


def test_scores_are_close_in_small(text, lost):
    assert "no score differs from random by more than 2.0 points" in text
    small = lost[SMALL]
    for share in (0.125, 0.25, 0.375, 0.5):
        random = small[share]["random"]
        assert all(abs(value - random) <= 2.0 for value in small[share].values())


def test_views_that_agree(text):
    rows = read("agreement")
    alike = {row["preset"]: row["pair"] for row in rows if float(row["rand_p"]) < 0.05}
    blocks = {(row["preset"], row["block"]) for row in rows}
    assert f"are more alike than chance in {len(alike)} of the {len(blocks)} blocks" in text
    assert "one in each preset" in text and set(alike) == {*TWO_BLOCKS, BASE}
    assert set(alike.values()) == {"single heads and pursuit"}
    (ranks,) = (row for row in rows if float(row["correlation_p"] or 1) < 0.05)
    assert ranks["pair"] == "single heads and pursuit" and float(ranks["correlation"]) < 0
    assert "the one ranking that is tied to another is tied the wrong way round" in text


def test_errors_are_as_the_text_says(text):
    errors = [100 * float(row["error"]) for row in read("curves")]
    assert f"at most {max(errors):.1f} points" in text


def tuned(preset):
    """Accuracy before and after fine-tuning, means over seeds: {(score, share): (%, %)}."""
    found = {}
    for row in read("tuned"):
        if row["preset"] == preset:
            values = [100 * float(row[key]) for key in ("accuracy_untuned", "accuracy")]
            found.setdefault((row["score"], row["asked"]), []).append(values)
    return {case: np.mean(values, axis=0) for case, values in found.items()}


def test_a_good_score_keeps_part_of_its_lead_after_a_short_tuning(text):
    found, leads = tuned(H16), []
    for share in ("0.25", "0.5"):
        random, ranked = found["random", share], found["mask_gradient", share]
        assert f"from {random[0]:.2f} to {random[1]:.2f} %" in text
        assert f"from {ranked[0]:.2f} to {ranked[1]:.2f} %" in text
        leads += [f"{lead:.1f}" for lead in (ranked - random)[::-1]]
    assert "its lead: {} points of {}, and {} of {}.".format(*leads) in text
    small = tuned(SMALL)
    apart = [
        abs(small["mask_gradient", share][1] - small["random", share][1])
        for share in ("0.25", "0.5")
    ]
    assert f"at most {max(apart):.1f} points of difference after tuning" in text


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


def test_the_same_with_32_heads_and_almost_nothing_in_base(text):
    assert "to all images; so it is with 32 heads" in text
    chosen, random = (
        list(map(statistics.mean, points_lost(H32)[kind])) for kind in ("chosen", "random")
    )
    assert chosen[0] > random[0] and chosen[1] > random[1]
    own, rest = map(statistics.mean, points_lost(BASE)["chosen"])
    assert f"changes little for anyone: {own:.2f} points in the superclass, {rest:.2f}" in text


def test_those_of_small_are_closer_to_it(text):
    lost = points_lost(SMALL)
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
    assert "1.4 times as fast at batch 1 and 1.7 times at batch 64" in text
    assert [speedups["torch", batch, "half of the heads"] for batch in ("1", "64")] == [1.4, 1.7]
    assert "gains none at batch 64" in text
    assert speedups["torch", "64", "a quarter of the maps"] == 1.0
