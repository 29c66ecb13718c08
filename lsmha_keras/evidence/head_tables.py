"""The tables of single-head performance: what heads recognise (T1) and along the blocks (T2)."""

import pathlib

from lsmha_keras.evidence.csv_rows import read_rows
from lsmha_keras.markdown_table import markdown_table

_BLOCK_COLUMNS = (
    "variant",
    "block",
    "images",
    "readout_accuracy",
    "clusters_per_head",
    "labels_per_cluster",
    "noise_per_head",
    "cluster_noise_per_head",
    "heads_per_label",
    "heads_per_label_min",
    "heads_per_label_max",
    "snr",
    "field_snr",
)
# Column of the csv file -> heading and decimals.
_HEADS = {
    "clusters_per_head": ("clusters per head", 1),
    "labels_per_cluster": ("labels per cluster", 2),
    "noise_per_head": ("noise per head", 0),
    "cluster_noise_per_head": ("of it beside clusters", 0),
}
_PREFIX = "shp_"


def clusters_table(results_dir):
    """Tabulates clusters, noise and coverage of the heads of each block, beside the controls (T1).

    Args:
        results_dir: path of `zoo/results`; every folder `shp_MODEL` in it that `lsmha shp` wrote
            is taken.

    Returns:
        str, a Markdown table.
    """
    header = ["model", "block", "", *(heading for heading, _ in _HEADS.values())]
    header += ["heads per label (least to most)", "labels without a head"]
    rows = []
    for model, folder in _folders(results_dir):
        labels = read_rows(folder / "labels.csv", ["variant", "block", "heads"])
        for row in _blocks(folder):
            spread = f"{row['heads_per_label_min']} to {row['heads_per_label_max']}"
            rows.append(
                [
                    *(model, row["block"], row["variant"]),
                    *(f"{float(row[key]):.{places}f}" for key, (_, places) in _HEADS.items()),
                    f"{float(row['heads_per_label']):.2f} ({spread})",
                    _uncovered(labels, row),
                ]
            )
    return markdown_table(header, rows)


def snr_table(results_dir):
    """Tabulates readout accuracy and signal-to-noise ratio along the blocks (T2).

    Args:
        results_dir: as for `clusters_table`.

    Returns:
        str, a Markdown table; controls without a readout are not shown.
    """
    header = ["model", "", "block", "images", "readout accuracy (%)", "SNR", "field SNR"]
    rows = [
        [
            *(model, row["variant"], row["block"], f"{int(row['images']):,}"),
            f"{100 * float(row['readout_accuracy']):.2f}",
            f"{float(row['snr']):.2f}",
            f"{float(row['field_snr']):.2f}",
        ]
        for model, folder in _folders(results_dir)
        for row in sorted(_blocks(folder), key=_trained_first)
        if row["readout_accuracy"]
    ]
    return markdown_table(header, rows)


def _folders(results_dir):
    folders = sorted(pathlib.Path(results_dir).glob(f"{_PREFIX}*/"))
    return [(folder.name.removeprefix(_PREFIX), folder) for folder in folders]


def _blocks(folder):
    rows = read_rows(folder / "blocks.csv", _BLOCK_COLUMNS)
    return sorted(rows, key=lambda row: int(row["block"]))  # a block's controls beside it


def _trained_first(row):
    return row["variant"] != "trained", row["variant"], int(row["block"])


def _uncovered(labels, block):
    own = [row for row in labels if all(row[key] == block[key] for key in ("variant", "block"))]
    return f"{sum(row['heads'] == '0' for row in own)} of {len(own)}" if own else ""
