"""The tables of `zoo/EVIDENCE.md`, made from csv files."""

import pathlib
import re
import statistics

from lsmha_keras.errors import InputError
from lsmha_keras.evidence.runs import COLUMNS
from lsmha_keras.text_files import markdown_table, read_rows
from tools.evidence.front import front_table
from tools.evidence.text_tables import text_heads_table

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


# Runs that agree in these columns are runs of one layout with different seeds.
_SCHEDULE = ("dataset", "split", "start", "epochs", "augmentation", "precision")
_GROUP = ("layout", "heads", "head_dim", "conv_blocks", "design", "parameters", *_SCHEDULE)


def layouts_table(results_dir):
    """Tabulates the accuracy of layouts over their seeds (T3).

    Args:
        results_dir: path of `zoo/results`, with a `layouts.csv` that `lsmha zoo collect` wrote.

    Returns:
        str, a Markdown table: mean and standard deviation over runs (n - 1 in the denominator;
        empty for a single run).
    """
    header = ["layout", "heads", "width of a head", "parameters", "data", "epochs", "augmentation"]
    header += ["runs", "mean accuracy (%)", "standard deviation", "lowest", "highest"]
    rows = [
        [
            *(runs[0][key] for key in ("layout", "heads", "head_dim")),
            f"{int(runs[0]['parameters']):,}",
            *(runs[0][key] for key in ("dataset", "epochs", "augmentation")),
            *_figures(runs),
            *(f"{pick(_accuracies(runs)):.2f}" for pick in (min, max)),
        ]
        for runs in _groups(_read(results_dir, "layouts.csv"))
        if runs[0]["conv_blocks"] == "0"
    ]
    return markdown_table(header, rows)


def hybrids_table(results_dir):
    """Tabulates the accuracy of hybrids beside that of their parents (T5).

    A parent has the same layout without convolutional blocks and was trained by the same schedule;
    that of a fine-tuned hybrid is the model it was made from.

    Args:
        results_dir: path of `zoo/results`, with `layouts.csv` and, where hybrids have a table of
            their own, `hybrids.csv`, both written by `lsmha zoo collect`.

    Returns:
        str, a Markdown table, each parent followed by its hybrids.
    """
    header = ["layout", "replaced blocks", "design", "data", "start", "epochs", "runs"]
    header += ["mean accuracy (%)", "standard deviation", "against its parent (points)"]
    groups = _groups(_read(results_dir, "layouts.csv") + _read(results_dir, "hybrids.csv"))
    hybrids = [runs for runs in groups if runs[0]["conv_blocks"] != "0"]
    rows, shown = [], []
    for runs in sorted(hybrids, key=_place):
        parent = _parent(runs[0], groups)
        if parent and parent not in shown:
            rows.append([*_hybrid(parent), ""])
            shown.append(parent)
        rows.append([*_hybrid(runs), _gain(runs, parent)])
    return markdown_table(header, rows)


def _read(results_dir, name):
    return read_rows(pathlib.Path(results_dir) / name, COLUMNS)


def _groups(rows):
    """Groups runs that differ only in their seed, in the order of the table."""
    groups = {}
    for row in rows:
        groups.setdefault(tuple(row[key] for key in _GROUP), []).append(row)
    return list(groups.values())


def _parent(row, groups):
    """Finds the runs to compare a hybrid with, if there are any."""
    for runs in groups:
        made_from = row["start"] in [run["name"] for run in runs]
        if runs[0]["conv_blocks"] == "0" and (made_from or _lineage(runs[0]) == _lineage(row)):
            return runs
    return None


def _lineage(row):
    """Returns what a hybrid and its parent have in common."""
    return (re.sub(r"_c\d+$", "", row["layout"]), *(row[key] for key in _SCHEDULE))


def _place(runs):
    """Sorts hybrids by their layout, trained from random weights before fine-tuned."""
    layout, *schedule = _lineage(runs[0])
    return (layout, runs[0]["start"] != "random", schedule, int(runs[0]["conv_blocks"]))


def _accuracies(runs):
    return [100 * float(row["accuracy"]) for row in runs]


def _figures(runs):
    accuracies = _accuracies(runs)
    deviation = f"{statistics.stdev(accuracies):.2f}" if len(runs) > 1 else ""
    return [str(len(runs)), f"{statistics.mean(accuracies):.2f}", deviation]


def _hybrid(runs):
    keys = ("layout", "conv_blocks", "design", "dataset", "start", "epochs")
    return [*(runs[0][key] for key in keys), *_figures(runs)]


def _gain(runs, parent):
    if not parent:
        return "parent not measured" if runs[0]["heads"] else "a CNN: no parent"
    difference = statistics.mean(_accuracies(runs)) - statistics.mean(_accuracies(parent))
    return f"{difference:+.2f}"


_COMMITTEE_COLUMNS = (
    "members",
    "mode",
    "accuracy",
    "best_member_accuracy",
    "mean_disagreement",
    "dataset",
    "split",
    "num_images",
)
# Column of the csv file -> heading and form.
_LATENCY = {
    "model": ("model", "{}"),
    "backend": ("backend", "{}"),
    "batch": ("batch", "{}"),
    "p50_ms": ("p50 (ms)", "{:.2f}"),
    "p90_ms": ("p90 (ms)", "{:.2f}"),
    "p99_ms": ("p99 (ms)", "{:.2f}"),
    "images_per_s": ("images/s", "{:,.0f}"),
    "ratio_to_first": ("p50 against the first", "{:.2f}"),
    "machine": ("machine", "{}"),
}


def committees_table(results_dir):
    """Tabulates committees beside their best member (T4).

    Args:
        results_dir: path of `zoo/results`, with a `committees.csv`.

    Returns:
        str, a Markdown table.
    """
    header = ["members", "mode", "data", "images", "accuracy (%)", "best member (%)"]
    header += ["gain (points)", "mean disagreement (%)"]
    rows = []
    for row in read_rows(pathlib.Path(results_dir) / "committees.csv", _COMMITTEE_COLUMNS):
        accuracy, best = (100 * float(row[key]) for key in ("accuracy", "best_member_accuracy"))
        disagreement = row["mean_disagreement"]
        rows.append(
            [
                *(row["members"], row["mode"], f"{row['dataset']} ({row['split']})"),
                *(f"{int(row['num_images']):,}", f"{accuracy:.2f}", f"{best:.2f}"),
                f"{accuracy - best:+.2f}",
                f"{100 * float(disagreement):.1f}" if disagreement else "",
            ]
        )
    return markdown_table(header, rows)


def latency_table(results_dir):
    """Tabulates latency and throughput of models that were measured in turn (T5).

    Args:
        results_dir: path of `zoo/results`, with a `latency.csv`.

    Returns:
        str, a Markdown table.
    """
    rows = [
        [_form(row[key], form) for key, (_, form) in _LATENCY.items()]
        for row in read_rows(pathlib.Path(results_dir) / "latency.csv", _LATENCY)
    ]
    return markdown_table([heading for heading, _ in _LATENCY.values()], rows)


def _form(text, form):
    if form == "{}" or not text:  # empty if it was not timed
        return text
    return form.format(float(text))


_ACCURACY_COLUMNS = ("design", "seed", "accuracy", "parameters")
_LATENCY_COLUMNS = ("backend", "grid", "width", "batch", "design", "ratio_to_transformer")


def designs_table(results_dir):
    """Tabulates accuracy after equal training and latency of the designs of the conv block (T5).

    Args:
        results_dir: path of `zoo/results`, with a `conv_designs.csv` and a
            `conv_block_latency.csv`.

    Returns:
        str, a Markdown table: accuracy on the images held out, mean over seeds; parameters of the
        whole model; and for each size the time of the folded block over that of a transformer
        block, on each backend that was measured.
    """
    results_dir = pathlib.Path(results_dir)
    runs, ratios = {}, {}
    for row in read_rows(results_dir / "conv_designs.csv", _ACCURACY_COLUMNS):
        runs.setdefault(row["design"], []).append(row)
    for row in read_rows(results_dir / "conv_block_latency.csv", _LATENCY_COLUMNS):
        size = f"{row['grid']}x{row['grid']}x{row['width']}, batch {row['batch']}"
        heading = f"time, {size} ({row['backend']})"
        ratios.setdefault(heading, {})[row["design"]] = float(row["ratio_to_transformer"])
    rows = [
        [
            design,
            f"{100 * statistics.mean(float(row['accuracy']) for row in found):.2f}",
            str(len(found)),
            f"{int(found[0]['parameters']):,}",
            *(f"{by_design[design]:.2f}" for by_design in ratios.values()),
        ]
        for design, found in runs.items()
    ]
    return markdown_table(["block", "accuracy (%)", "seeds", "parameters", *ratios], rows)


TABLES = {
    "T1": clusters_table,
    "T2": snr_table,
    "T3": layouts_table,
    "T4": committees_table,
    "T5-designs": designs_table,
    "T5-accuracy": hybrids_table,
    "T5-latency": latency_table,
    "T6": text_heads_table,
    "front": front_table,
}
_PLACE = re.compile(r"(<!-- table: (\S+) -->\n)(.*?)(<!-- end -->)", re.DOTALL)


def evidence_text(text, results_dir, tables=None):
    r"""Replaces the tables in the text by those made from the csv files.

    A table stands between `<!-- table: NAME -->` and `<!-- end -->`; what is around it is left as
    it is.

    Args:
        text: str, Markdown.
        results_dir: path of `zoo/results`.
        tables: dict from a table's name to the function that makes it; `None` for those of
            `zoo/EVIDENCE.md`.

    Returns:
        str, the text with every table as the csv files give it now.

    Raises:
        ValueError: if a table has no place or two, a name is unknown, or an end is missing.

    Example:

    ```python
    text = "".join(f"<!-- table: {name} -->\n<!-- end -->\n" for name in TABLES)
    print(evidence_text(text, "zoo/results"))
    ```
    """
    tables = TABLES if tables is None else tables
    places = _PLACE.findall(text)
    names = [name for _, name, _, _ in places]
    if sorted(names) != sorted(tables) or text.count("<!-- table:") != len(tables):
        raise InputError(
            "The text must have the tables "
            f"{', '.join(tables)}, each once, as `<!-- table: NAME -->` and `<!-- end -->` on "
            f"lines of their own. Received: {', '.join(names) or 'none'}"
        )

    def fill(match):
        return f"{match[1]}\n{tables[match[2]](results_dir)}\n{match[4]}"

    return _PLACE.sub(fill, text)
