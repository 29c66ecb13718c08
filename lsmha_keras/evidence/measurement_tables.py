"""The tables of committees (T4) and of latency (T5)."""

import pathlib

from lsmha_keras.evidence.csv_rows import read_rows
from lsmha_keras.markdown_table import markdown_table

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
    if form == "{}" or not text:  # What was not timed is empty.
        return text
    return form.format(float(text))
