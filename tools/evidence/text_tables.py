"""The table of single heads of text models (T6), made from what `lsmha shp` wrote."""

import pathlib
import statistics

from lsmha_keras.text_files import markdown_table, read_rows

_PREFIX, _SEED = "text_shp_", "_seed_"
_COLUMNS = (
    "variant",
    "block",
    "heads",
    "labels",
    "readout_accuracy",
    "clusters_per_head",
    "labels_per_cluster",
    "noise_per_head",
    "heads_per_label",
    "snr",
)


def text_heads_table(results_dir):
    """Tabulates what the heads of text models respond to, beside the controls (T6).

    Args:
        results_dir: path of `zoo/results`; every folder `text_shp_MODEL_seed_N` in it, with a
            `blocks.csv` of `lsmha shp`, is taken.

    Returns:
        str, a Markdown table: means over the seeds of a model, of the SNR also the lowest and the
        highest.
    """
    header = ["model", "seeds", "block", "", "readout accuracy (%)", "clusters per head"]
    header += ["labels per cluster", "labels per head", "noise per head", "SNR"]
    rows = []
    for model, runs in text_runs(results_dir).items():
        for place, found in sorted(_by_place(runs).items(), key=_trained_first):
            rows.append([model, str(len(found)), *place, *_cells(found)])
    return markdown_table(header, rows)


def text_runs(results_dir):
    """Reads `{model: [rows of blocks.csv of a seed, ...]}`; each row also has labels per head."""
    runs = {}
    for folder in sorted(pathlib.Path(results_dir).glob(f"{_PREFIX}*{_SEED}*/")):
        model = folder.name.removeprefix(_PREFIX).rpartition(_SEED)[0]
        rows = read_rows(folder / "blocks.csv", _COLUMNS)
        for row in rows:
            covered = float(row["heads_per_label"]) * int(row["labels"])
            row["labels_per_head"] = covered / int(row["heads"])
        runs.setdefault(model, []).append(rows)
    return runs


def _by_place(runs):
    found = {}
    for rows in runs:
        for row in rows:
            found.setdefault((row["block"], row["variant"]), []).append(row)
    return found


def _trained_first(entry):
    (block, variant), _ = entry
    return int(block), variant != "trained", variant


def _cells(rows):
    def mean(key):
        return statistics.mean(float(row[key]) for row in rows)

    ratios = [float(row["snr"]) for row in rows]
    return [
        f"{100 * mean('readout_accuracy'):.2f}" if rows[0]["readout_accuracy"] else "",
        f"{mean('clusters_per_head'):.1f}",
        f"{mean('labels_per_cluster'):.2f}",
        f"{mean('labels_per_head'):.1f}",
        f"{mean('noise_per_head'):.0f}",
        f"{statistics.mean(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})",
    ]
