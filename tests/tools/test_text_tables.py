"""The table of heads of text models, worked by hand, and what zoo/EVIDENCE.md says of it."""

import statistics

import pytest

from lsmha_keras.presets import zoo_dir
from tools.evidence.text_tables import text_heads_table, text_runs

pytestmark = pytest.mark.backend_free

HEADER = "variant,block,heads,labels,readout_accuracy,clusters_per_head,labels_per_cluster,"
HEADER += "noise_per_head,heads_per_label,snr\n"


def test_seeds_are_averaged(tmp_path):
    rows = {
        0: "trained,0,16,50,0.5,10,2,100,6.4,3\nGaussian null,0,16,50,,12,1.1,400,2,1\n",
        1: "trained,0,16,50,0.6,14,3,200,9.6,5\nGaussian null,0,16,50,,14,1.3,600,4,2\n",
    }
    for seed, lines in rows.items():
        folder = tmp_path / f"text_shp_tiny_seed_{seed}"
        folder.mkdir()
        (folder / "blocks.csv").write_text(HEADER + lines)
    lines = text_heads_table(tmp_path).splitlines()[2:]
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    # Labels per head: 6.4 * 50 / 16 = 20 and 30; 6.25 and 12.5.
    assert cells == [
        [
            "tiny",
            "2",
            "0",
            "trained",
            "55.00",
            "12.0",
            "2.50",
            "25.0",
            "150",
            "4.00 (3.00 to 5.00)",
        ],
        [
            "tiny",
            "2",
            "0",
            "Gaussian null",
            "",
            "13.0",
            "1.20",
            "9.4",
            "500",
            "1.50 (1.00 to 2.00)",
        ],
    ]


def test_t6_is_what_the_csv_files_say():
    text = " ".join((zoo_dir() / "EVIDENCE.md").read_text(encoding="utf-8").split())
    ((model, runs),) = text_runs(zoo_dir() / "results").items()
    assert f"| {model} | {len(runs)} | 0 | trained |" in text

    def of(variant, key, block=None):
        return [
            float(row[key])
            for rows in runs
            for row in rows
            if row["variant"] == variant and block in (None, int(row["block"]))
        ]

    (labels,) = {row["labels"] for rows in runs for row in rows if row["variant"] == "trained"}
    covered, sizes = of("trained", "labels_per_head"), of("trained", "labels_per_cluster")
    assert f"covers {_span(covered)} of the {labels} labels" in text
    assert f"in clusters of {_span(sizes, 2)} labels on average" in text
    for control in ("Gaussian null", "untrained trunk", "permuted labels"):
        assert min(covered) > max(of(control, "labels_per_head")), control
        assert min(of("trained", "snr")) > max(of(control, "snr")), control
    noise = of("trained", "noise_per_head")
    for control in ("Gaussian null", "untrained trunk"):
        assert max(noise) < min(of(control, "noise_per_head")), control
    others = of("untrained trunk", "labels_per_head")
    assert f"of the untrained trunk {_span(others)}" in text
    permuted = of("permuted labels", "clusters_per_head")
    assert f"they have {_span(permuted)} clusters" in text
    for key, words in (("snr", "the SNR falls"), ("readout_accuracy", "the readout's accuracy")):
        first, second = (statistics.mean(of("trained", key, block)) for block in (0, 1))
        factor, places = (1, 1) if key == "snr" else (100, 1)
        assert second < first
        figures = f"from {factor * first:.{places}f} to {factor * second:.{places}f}"
        assert f"{words} {figures}" in text


def _span(values, places=1):
    low, high = f"{min(values):.{places}f}", f"{max(values):.{places}f}"
    return low if low == high else f"{low} to {high}"
