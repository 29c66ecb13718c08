"""The tables of `zoo/VARIANTS.md`: what kinds of attention cost and reach, from csv files."""

import functools
import pathlib
import statistics

from lsmha_keras.attention.registry import attention_names
from lsmha_keras.text_files import markdown_table, read_rows

_CASE = ("phase", "batch", "heads")
_COLUMNS = ("backend", *_CASE, "attention", "ratio_to_multi_head")
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
    """Tabulates multiply-adds of a layer of each kind, over those of plain attention.

    Args:
        results_dir: path of `zoo/results`, with an `attention_kinds.csv` of `lsmha bench kinds`.

    Returns:
        str, a Markdown table. Kinds without a row are said to be not measured.
    """
    columns = (*_COLUMNS, "ratio_of_multiply_adds")
    rows = read_rows(pathlib.Path(results_dir) / "attention_kinds.csv", columns)
    found = {(row["heads"], row["attention"]): row["ratio_of_multiply_adds"] for row in rows}
    heads = dict.fromkeys(row["heads"] for row in rows)
    return _ratio_table({f"{count} heads": count for count in heads}, found)


def time_table(results_dir, backend):
    """Tabulates the time of a layer of each kind on a backend, over that of plain attention.

    Args:
        results_dir: as for `cost_table`.
        backend: str.

    Returns:
        str, a Markdown table, as of `cost_table`.
    """
    rows = read_rows(pathlib.Path(results_dir) / "attention_kinds.csv", _COLUMNS)
    return _measured_table([row for row in rows if row["backend"] == backend])


def memory_table(results_dir, backend):
    """Tabulates the peak memory that a step of a layer of each kind adds, over plain attention's.

    Args:
        results_dir: path of `zoo/results`, with an `attention_kinds_memory.csv` of
            `lsmha bench kinds --memory`. On TensorFlow the rows without XLA are taken.
        backend: str.

    Returns:
        str, a Markdown table, as of `cost_table`.
    """
    path = pathlib.Path(results_dir) / "attention_kinds_memory.csv"
    rows = [row for row in read_rows(path, (*_COLUMNS, "xla")) if row["backend"] == backend]
    return _measured_table([r for r in rows if backend != "tensorflow" or r["xla"] == "False"])


def _measured_table(rows):
    cases = dict.fromkeys(tuple(row[key] for key in _CASE) for row in rows)
    titles = {f"{case[2]} heads, {case[0]}, batch {case[1]}": case for case in cases}
    found = {
        (tuple(row[key] for key in _CASE), row["attention"]): row["ratio_to_multi_head"]
        for row in rows
    }
    return _ratio_table(titles, found)


def _ratio_table(titles, found):
    """A line for each kind; `found` is a dict from a title's case and a kind to a ratio."""
    if not titles:
        return markdown_table([], [])
    lines = []
    for kind in attention_names():
        cells = [found.get((case, kind)) for case in titles.values()]
        lines.append([f"`{kind}`", *(f"{float(c):.2f}" if c else _ABSENT for c in cells)])
    return markdown_table(["kind", *titles], lines)


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


_BACKENDS = ("jax", "torch", "tensorflow")
TABLES = {
    "cost": cost_table,
    **{f"time_{name}": functools.partial(time_table, backend=name) for name in _BACKENDS},
    **{f"memory_{name}": functools.partial(memory_table, backend=name) for name in _BACKENDS},
    "accuracy": accuracy_table,
}
