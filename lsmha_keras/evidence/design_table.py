"""The table of designs of the conv block, by which one was chosen (T5)."""

import pathlib
import statistics

from lsmha_keras.evidence.csv_rows import read_rows
from lsmha_keras.markdown_table import markdown_table

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
