"""The tables of training runs: layouts of heads (T3), and hybrids beside their parents (T5)."""

import pathlib
import re
import statistics

from lsmha_keras.evidence.csv_rows import read_rows
from lsmha_keras.evidence.run_row import COLUMNS
from lsmha_keras.markdown_table import markdown_table

# Runs that agree in these are runs of one layout that differ in their seed.
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
    """Returns lists of runs that differ in nothing but their seed, in the order of the table."""
    groups = {}
    for row in rows:
        groups.setdefault(tuple(row[key] for key in _GROUP), []).append(row)
    return list(groups.values())


def _parent(row, groups):
    """Finds the runs that a hybrid is compared with, if they are there."""
    for runs in groups:
        made_from = row["start"] in [run["name"] for run in runs]
        if runs[0]["conv_blocks"] == "0" and (made_from or _lineage(runs[0]) == _lineage(row)):
            return runs
    return None


def _lineage(row):
    """Tells what a hybrid and its parent have in common."""
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
        return "parent not measured"
    difference = statistics.mean(_accuracies(runs)) - statistics.mean(_accuracies(parent))
    return f"{difference:+.2f}"
