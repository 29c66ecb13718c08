"""The folder of a report: complete, and every table the same as the results."""

import csv
import json

import numpy as np
import pytest
from PIL import Image

from lsmha_keras.shp.controls import THRESHOLDS
from lsmha_keras.shp.report import plots
from lsmha_keras.shp.report import write as report
from lsmha_keras.shp.report.read import read_beside, read_report
from lsmha_keras.shp.report.tables import block_rows
from lsmha_keras.shp.report.write import write_report
from tests.shp.pages import make_exemplars
from tests.shp.results import (
    BLOCKS,
    DEAD,
    HEADS,
    LABELS,
    MISSING,
    NAMES,
    make_report_inputs,
    make_results,
)

pytest.importorskip("matplotlib", reason='figures need pip install "lsmha-keras[plots]"')

pytestmark = pytest.mark.backend_free

FIGURES = ("matrices", "boolean", "coverage", "head_label_map", "threshold_sweep")
VARIANTS = ("trained", "Gaussian null", "untrained trunk")


@pytest.fixture(scope="module")
def made():
    return make_report_inputs()


@pytest.fixture(scope="module")
def folder(made, tmp_path_factory):
    folder = tmp_path_factory.mktemp("report") / "new"
    more = {"accuracy": 0.625, "exemplars": make_exemplars(), "seeds": [make_results(4, seed=8)]}
    page = write_report(made[0], folder, made[1], made[2], title="test", **more)
    assert page == folder / "index.html"
    return folder


def test_figures_are_pictures(folder):
    names = {"along_blocks.png"}
    names |= {f"block_{block}_{name}.png" for block in BLOCKS for name in FIGURES}
    assert {path.name for path in folder.glob("*.png")} == names
    for name in names:
        pixels = np.asarray(Image.open(folder / name).convert("L"))
        assert min(pixels.shape) > 300 and pixels.std() > 5, name
        drawing = (folder / name).with_suffix(".svg").read_text(encoding="utf-8")
        assert drawing.startswith("<?xml") and "</svg>" in drawing
        assert (folder / name).with_suffix(".pdf").read_bytes().startswith(b"%PDF")


def test_figures_say_what_they_are_of(made, tmp_path, monkeypatch):
    """Model, data, images and threshold stand below each title, and nothing lies over them."""
    signed = []
    monkeypatch.setattr(report, "save_figure", lambda figure, path, dpi: signed.append(figure))
    write_report(made[0], tmp_path / "out", made[1], title="model on data (test)")
    for figure in signed:
        text = figure.texts[-1]
        images = f"{made[0][1].label_counts.sum()} images · threshold 0.3 · recomputed pooling"
        assert text.get_text() == f"model on data (test) · {images}"
        figure.draw_without_rendering()
        box = text.get_window_extent()
        others = [axes.get_tightbbox() for axes in figure.axes]
        others += [
            line.get_window_extent() for line in figure.texts[1:-1]
        ]  # the title is the first
        assert not any(box.overlaps(other) for other in others)
        assert box.x1 < figure.bbox.x1


def test_the_model_itself_is_a_line_along_the_blocks(made):
    axes = plots.plot_along_blocks(made[0], accuracy=0.625).axes[0]
    assert axes.lines[-1].get_ydata() == pytest.approx([62.5, 62.5])
    assert axes.get_ylim()[1] > 62.5


def test_readouts_of_other_seeds(folder, made):
    rows = _read(folder / "readout_seeds.csv")
    assert [(row["variant"], row["block"]) for row in rows] == [
        (f"seed {seed}", str(block)) for seed in (0, 1) for block in BLOCKS
    ]
    for row, results in zip(rows[1::2], (made[0], make_results(4, seed=8)), strict=True):
        assert float(row["snr"]) == pytest.approx(results[2].snr, rel=1e-5)


def test_a_report_is_read_back(folder, made):
    title, results = read_report(folder, threshold=0.4)
    assert title == "test" and list(results) == list(BLOCKS)
    for block, result in results.items():
        expected = made[0][block].at(0.4)
        assert result.clusters == expected.clusters and result.snr == expected.snr
        assert result.label_names == NAMES and result.readout_accuracy == 0.5
    assert list(read_beside([folder])) == ["test"]


def test_what_is_no_report_is_named(folder, tmp_path):
    with pytest.raises(ValueError, match=f"no report: .* Received: {tmp_path}"):
        read_beside([folder, tmp_path])
    with pytest.raises(ValueError, match="same title.* Received: 'test'"):
        read_beside([folder, folder])


def test_arrays(folder, made):
    with np.load(folder / "shp.npz") as arrays:
        for block in BLOCKS:
            np.testing.assert_array_equal(
                arrays[f"trained/block_{block}"], made[0][block].class_means
            )
        assert f"{VARIANTS[2]}/block_2" in arrays
        assert arrays["label_names"].tolist() == NAMES


def test_heads_table(folder, made):
    rows = _read(folder / "statistics.csv")
    assert len(rows) == len(VARIANTS) * len(BLOCKS) * HEADS
    for row in rows[: len(BLOCKS) * HEADS]:
        result, head = made[0][int(row["block"])], int(row["head"])
        found = result.statistics
        assert int(row["noise"]) == found.noise[head]
        assert int(row["cluster_noise"]) == found.cluster_noise[head]
        assert int(row["clusters"]) == len(found.clusters[head])
        assert int(row["labels_covered"]) == sum(map(len, found.clusters[head]))
        assert row["dead"] == str(result.block == 2 and head == DEAD)
        expected = made[2][result.block]["accuracy_drop"][head]
        assert float(row["accuracy_drop"]) == pytest.approx(expected, abs=1e-6)
    assert rows[-1]["accuracy_drop"] == ""  # scores are of the trained model


def test_blocks_table(folder, made):
    rows = _read(folder / "blocks.csv")
    assert [(row["variant"], int(row["block"])) for row in rows] == [
        (variant, block) for variant in VARIANTS for block in BLOCKS
    ]
    row, result = rows[1], made[0][2]
    measured = np.delete(result.coverage, MISSING)
    assert int(row["labels"]) == LABELS - 1
    assert float(row["heads_per_label"]) == pytest.approx(measured.mean(), rel=1e-5)
    assert int(row["heads_per_label_max"]) == measured.max()
    assert float(row["snr"]) == pytest.approx(result.snr, rel=1e-5)
    assert float(row["noise_per_head"]) == pytest.approx(result.statistics.noise.mean(), rel=1e-5)
    assert int(row["dead_heads"]) == 1
    assert rows[2]["readout_accuracy"] == ""


def test_labels_table(folder, made):
    rows = _read(folder / "labels.csv")
    first = [row for row in rows if (row["variant"], row["block"]) == ("trained", "2")]
    assert [row["name"] for row in first] == NAMES
    assert [int(row["heads"]) for row in first] == made[0][2].coverage.tolist()
    assert first[MISSING]["images"] == "0"


def test_threshold_sweep(folder, made):
    rows = _read(folder / "threshold_sweep.csv")
    assert len(rows) == len(THRESHOLDS) * len(VARIANTS) * len(BLOCKS)
    for row in rows:
        variants = {"trained": made[0], **made[1]}
        result = variants[row["variant"]][int(row["block"])].at(float(row["threshold"]))
        assert float(row["noise_per_head"]) == pytest.approx(result.noise, rel=1e-5)


def test_json_holds_the_same_tables_and_no_infinity(folder, made):
    text = (folder / "statistics.json").read_text()
    content = json.loads(text, parse_constant=pytest.fail)
    assert content["title"] == "test" and content["accuracy"] == 0.625
    assert len(content["statistics"]) == len(VARIANTS) * len(BLOCKS) * HEADS
    assert content["blocks"][1]["snr"] == pytest.approx(made[0][2].snr)
    # A score that is the same for all heads has no rank correlation.
    assert [row["mask_gradient"] for row in content["rank_correlations"]] == [None, None]


def test_noiseless_block_has_infinite_snr(tmp_path, made):
    from lsmha_keras.shp.shp_result import SHPResult

    clean = {1: SHPResult(1, np.eye(4)[None].repeat(2, axis=0), np.ones(4))}
    assert block_rows({"trained": clean})[0]["snr"] == np.inf
    write_report(clean, tmp_path)
    assert json.loads((tmp_path / "statistics.json").read_text())["blocks"][0]["snr"] is None
    assert _read(tmp_path / "blocks.csv")[0]["snr"] == "inf"
    assert not (tmp_path / "rank_correlations.csv").exists()


@pytest.mark.parametrize(
    ("results", "controls", "message"),
    [([], None, "at least one block"), ([1, 2], [1], r"'null' with \[1\]")],
)
def test_wrong_blocks_are_refused(results, controls, message, made, tmp_path):
    results = {block: made[0][block] for block in results}
    controls = controls and {"null": {block: made[0][block] for block in controls}}
    with pytest.raises(ValueError, match=message):
        write_report(results, tmp_path / "out", controls)
    assert not (tmp_path / "out").exists()


def _read(path):
    with path.open(newline="") as file:
        return list(csv.DictReader(file))
