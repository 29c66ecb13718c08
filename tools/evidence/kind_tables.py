"""The tables of `zoo/VARIANTS.md`: what kinds of attention cost and reach, from csv files."""

import pathlib
import statistics

from lsmha_keras.attention.registry import attention_names
from lsmha_keras.text_files import markdown_table, read_rows

_COST_CASE = ("backend", "phase", "batch", "heads")
_COST_COLUMNS = (*_COST_CASE, "attention", "ratio_to_multi_head", "ratio_of_multiply_adds")
ACCURACY_CASE = ("attention", "seed")
ACCURACY_FIGURES = (
    "options",
    "accuracy",
    "top5_accuracy",
    "parameters",
    "multiply_adds",
    "epochs",
    "train_split",
    "clusters_per_head",
    "coverage",
    "noise_per_head",
)
_ABSENT = "not measured"


def cost_table(results_dir):
    """Tabulates multiply-adds and time of a layer of each kind, over those of plain attention.

    Args:
        results_dir: path of `zoo/results`, with an `attention_kinds.csv` of `lsmha bench kinds`.

    Returns:
        str, a Markdown table. Kinds without a row are said to be not measured.
    """
    rows = read_rows(pathlib.Path(results_dir) / "attention_kinds.csv", _COST_COLUMNS)
    if not rows:
        return markdown_table([], [])
    cases = list(dict.fromkeys(tuple(row[key] for key in _COST_CASE) for row in rows))
    heads = list(dict.fromkeys(row["heads"] for row in rows))
    header = ["kind", *(f"multiply-adds, {count} heads" for count in heads)]
    header += [f"time, {c[3]} heads, {c[1]}, batch {c[2]} ({c[0]})" for c in cases]
    lines = []
    for kind in attention_names():
        own = [row for row in rows if row["attention"] == kind]
        products = {row["heads"]: row["ratio_of_multiply_adds"] for row in own}
        times = {tuple(r[key] for key in _COST_CASE): r["ratio_to_multi_head"] for r in own}
        cells = [products.get(count) for count in heads] + [times.get(case) for case in cases]
        lines.append([f"`{kind}`", *(f"{float(c):.2f}" if c else _ABSENT for c in cells)])
    return markdown_table(header, lines)


def accuracy_table(results_dir):
    """Tabulates accuracy after equal training and figures of heads, a line for each kind.

    Args:
        results_dir: path of `zoo/results`, with a `kinds.csv` that `python -m benchmarks.kinds`
            wrote.

    Returns:
        str, a Markdown table, the means over seeds. Kinds without a row are said to be not
        measured.
    """
    rows = read_rows(pathlib.Path(results_dir) / "kinds.csv", (*ACCURACY_CASE, *ACCURACY_FIGURES))
    if not rows:
        return markdown_table([], [])
    header = ["kind", "accuracy (%)", "seeds", "parameters", "multiply-adds (million)"]
    header += ["clusters per head", "heads per label", "noise per head"]
    lines = []
    for kind in attention_names():
        own = [row for row in rows if row["attention"] == kind]
        if not own:
            lines.append([f"`{kind}`", _ABSENT, *[""] * (len(header) - 2)])
            continue
        means = {
            key: statistics.mean(float(row[key]) for row in own)
            for key in ("accuracy", "multiply_adds", "clusters_per_head", "coverage")
        }
        noise = statistics.mean(float(row["noise_per_head"]) for row in own)
        lines.append(
            [
                *(f"`{kind}`", f"{100 * means['accuracy']:.2f}", str(len(own))),
                *(f"{int(own[0]['parameters']):,}", f"{means['multiply_adds'] / 1e6:.1f}"),
                *(f"{means['clusters_per_head']:.1f}", f"{means['coverage']:.2f}", f"{noise:.0f}"),
            ]
        )
    return markdown_table(header, lines)


TABLES = {"cost": cost_table, "accuracy": accuracy_table}
