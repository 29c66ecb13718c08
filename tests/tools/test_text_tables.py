"""The table of heads of text models, worked by hand, and what zoo/EVIDENCE.md says of it."""

import pytest

from tools.evidence.text_tables import text_heads_table

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
