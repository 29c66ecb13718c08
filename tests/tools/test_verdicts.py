"""What zoo/EVIDENCE.md concludes is what the csv files say."""

import itertools
import re
import statistics

import pytest

from lsmha_keras.benchmark.multiply_adds import count_multiply_adds
from lsmha_keras.models.cct_backbone import CCTBackbone
from lsmha_keras.presets import ALIASES, zoo_dir
from lsmha_keras.text_files import read_rows
from lsmha_keras.training.recipe import load_recipe

pytestmark = pytest.mark.backend_free

RESULTS = zoo_dir() / "results"


@pytest.fixture(scope="module")
def text():
    # Paragraphs are broken where the editor likes.
    return " ".join((zoo_dir() / "EVIDENCE.md").read_text(encoding="utf-8").split())


@pytest.fixture(scope="module")
def blocks():
    """{model: {variant: [row of block 0, row of block 1]}}."""
    found = {}
    for path in sorted(RESULTS.glob("shp_*/blocks.csv")):
        rows = read_rows(path, ["variant", "block", "snr"])
        for row in sorted(rows, key=lambda row: int(row["block"])):
            model = found.setdefault(path.parent.name.removeprefix("shp_"), {})
            model.setdefault(row["variant"], []).append(row)
    return found


def test_t1_trained_heads_cover_more_with_less_noise(blocks, text):
    assert "Trained heads cover each label more often than the three controls" in text
    sizes = []
    for variants in blocks.values():
        for i, trained in enumerate(variants["trained"]):
            sizes.append(float(trained["labels_per_cluster"]))
            for control, rows in variants.items():
                if control != "trained":
                    covered = float(rows[i]["heads_per_label"])
                    assert float(trained["heads_per_label"]) > covered, control
            for control in ("Gaussian null", "permuted labels"):
                noise = float(variants[control][i]["noise_per_head"])
                assert float(trained["noise_per_head"]) < noise, control
    assert f"their mean size is {min(sizes):.2f} to {max(sizes):.2f}" in text


def test_t2_along_the_blocks(blocks, text):
    assert "In all trained models the accuracy of the readout rises from each block to the" in text
    assert "From the first block with heads to the second, the SNR and the field SNR rise" in text
    changes = []
    for variants in blocks.values():
        accuracy = _column(variants["trained"], "readout_accuracy")
        assert accuracy == sorted(accuracy)
        for key in ("snr", "field_snr"):
            first, second, *_ = _column(variants["trained"], key)
            assert second > first, key
        untrained = _column(variants["untrained trunk"], "readout_accuracy")
        changes += [100 * abs(b - a) for a, b in itertools.pairwise(untrained)]
    assert f"in the untrained models it changes by at most {max(changes):.1f} points" in text


def test_t2_snr_falls_where_blocks_were_added(blocks, text):
    trained = blocks["cct_7_3x2_ib_h16_c2_cifar100_56_epochs"]["trained"]
    accuracy, snr = (_column(trained, key) for key in ("readout_accuracy", "snr"))
    assert len(snr) == 5 and snr[2] < snr[0]
    figures = ", ".join(f"{value:.1f}" for value in snr[:-1])
    assert f"the SNR of its five blocks is {figures} and {snr[-1]:.1f}" in text
    assert f"from {100 * accuracy[0]:.2f} to {100 * accuracy[-1]:.2f} %" in text


def _column(rows, key):
    return [float(row[key]) for row in rows]


def test_t3_layouts(text):
    runs = {}
    for row in read_rows(RESULTS / "layouts.csv", ["layout", "accuracy", "epochs", "start"]):
        if (row["epochs"], row["start"], row["conv_blocks"]) == ("18", "random", "0"):
            runs.setdefault(row["heads"], []).append(100 * float(row["accuracy"]))
    assert {heads: len(found) for heads, found in runs.items()} == {
        "2": 1,
        "16": 2,
        "25": 1,
        "32": 1,
    }
    means = {heads: statistics.mean(found) for heads, found in runs.items()}
    many = [mean for heads, mean in means.items() if heads != "2"]
    # 58.565 is the mean of two figures with two digits.
    assert max(many) - min(many) <= 0.7
    low, high = min(many) - means["2"], max(many) - means["2"]
    assert f"16, 25 and 32 heads within 0.7 points, 2 heads {low:.1f} to {high:.1f} below" in text
    assert f"{max(runs['16']) - min(runs['16']):.2f} points apart" in text


def test_t4_committees(text):
    gains = {}
    for row in read_rows(RESULTS / "committees.csv", ["members", "mode", "accuracy"]):
        gain = 100 * (float(row["accuracy"]) - float(row["best_member_accuracy"]))
        gains.setdefault(row["members"].count("+") + 1, []).append(gain)
    assert min(min(found) for found in gains.values()) > 0
    spans = {size: f"{min(found):.1f} to {max(found):.1f}" for size, found in gains.items()}
    assert f"that of four by {spans[4]} points, that of three by {spans[3]}, " in text
    assert f"those of two by {spans[2]}." in text


def test_t5_hybrids(text):
    runs = {}
    for row in read_rows(RESULTS / "layouts.csv", ["layout", "accuracy", "epochs", "start"]):
        key = (row["layout"], row["epochs"], row["start"] == "random")
        runs.setdefault(key, []).append(100 * float(row["accuracy"]))
    parent = runs["cct_2_3x2_h16", "18", True]
    hybrid = runs["cct_2_3x2_h16_c1", "18", True]
    assert min(hybrid) > max(parent)
    difference = statistics.mean(hybrid) - statistics.mean(parent)
    assert f"both its runs are better than both of its parent's, by {difference:.1f} points" in text
    (tuned,) = runs["cct_2_3x2_h16_c1", "5", False]
    assert f"stays {statistics.mean(parent) - tuned:.0f} points below the parent" in text
    (long,) = runs["cct_2_3x2_h16_c1", "60", True]
    assert f"{long:.2f} %, one run" in text


def test_t5_a_cnn_of_equal_cost_is_as_accurate(text):
    runs = {}
    for row in read_rows(RESULTS / "layouts.csv", ["layout", "accuracy", "epochs", "start"]):
        if (row["epochs"], row["start"]) == ("18", "random"):
            runs.setdefault(row["layout"], []).append(100 * float(row["accuracy"]))
    (cnn,) = runs["cct_8_3x2_c8"]
    above = cnn - max(runs["cct_2_3x2_h16_c1"])
    assert f"reaches {cnn:.2f} % by the same schedule, one run: {above:.2f} points above" in text
    recipe = load_recipe("cct_8_3x2_c8_cifar100").model
    backbones = [
        CCTBackbone.from_preset(recipe.preset, **recipe.overrides),
        CCTBackbone.from_preset("cct_2_3x2_h16_c1"),
    ]
    cnn, hybrid = (f"{count_multiply_adds(backbone) / 1e6:.1f}" for backbone in backbones)
    assert f"{cnn} million multiply-adds against {hybrid})" in text


def test_t5_latency(text):
    ratios = {}
    for row in read_rows(RESULTS / "latency.csv", ["model", "backend", "batch", "ratio_to_first"]):
        key = (row["model"].split()[0], row["backend"], row["batch"])
        ratios[key] = 1 / float(row["ratio_to_first"])
    for backend in ("jax", "tensorflow"):
        assert f"{ratios['cct_2_3x2_h16_c1', backend, '1']:.1f}" == "1.2"
        assert ratios["cct_2_3x2_h16_c1", backend, "64"] > 1
    assert "a single image is 1.2 times as fast" in text
    figures = re.search(
        r"three of seven blocks makes a single image ([\d.]+) times as fast with 64 heads and "
        r"([\d.]+) times with 4; replacing four makes it ([\d.]+) and ([\d.]+) times as fast",
        text,
    ).groups()
    names = ("cct_7_3x1_h64_c3", "cct_7_3x1_c3", "cct_7_3x1_h64_c4", "cct_7_3x1_c4")
    assert list(figures) == [f"{ratios[name, 'jax', '1']:.1f}" for name in names]


def test_front_times(text):
    times = {
        row["model"]: f"{float(row['median_ms']):.2f}"
        for row in read_rows(RESULTS / "cnn_latency.csv", ["runtime", "model", "median_ms"])
        if row["runtime"] == "openvino"
    }
    base, small = (times[ALIASES[name]] for name in ("lsmha-base", "lsmha-small"))
    assert f"takes {times['mobilenetv2_x0_5']} ms and `lsmha-base` {base};" in text
    assert f"`lsmha-small` takes {small} and ResNet-20 {times['resnet20']}." in text
