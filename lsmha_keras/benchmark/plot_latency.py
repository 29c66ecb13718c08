"""Plots accuracy against the time of one image, from the table of `lsmha bench latency`."""

import csv
import pathlib

from lsmha_keras.errors import InputError
from lsmha_keras.figure_style import INK, MUTED, SIGNAL, draws, new_figure
from lsmha_keras.files import write_atomically


@draws
def plot_latency(table, path):
    """Plots every way whose accuracy and time for one image are in the table.

    Args:
        table: path of the csv.
        path: image to write.

    Raises:
        ImportError: if matplotlib is missing.
        ValueError: if the table has no such row.

    Example:

    ```python
    plot_latency("latency.csv", "latency.png")
    ```
    """
    with pathlib.Path(table).open(newline="") as file:
        rows = [
            row
            for row in csv.DictReader(file)
            if row["what"] == "one image" and row["accuracy"] and row["median_ms"]
        ]
    if not rows:
        raise InputError(
            "The table must have rows of one image with an accuracy; `--calibration` measures it. "
            f"Received: {table}"
        )
    note = "Blue: Predictor. Grey: predict and predict_on_batch of Keras. One image, medians."
    figure = new_figure(6.4, 4.2, "How long one photo takes, and how often it is right", note)
    axes = figure.subplots()
    for row in rows:
        point = float(row["median_ms"]), float(row["accuracy"])
        ours = row["way"].startswith("Predictor")
        axes.plot(*point, "o" if ours else "s", color=SIGNAL if ours else MUTED)
        name = f"{row['preset'].replace('_cifar100', '')}\n{row['way'].removeprefix('Predictor, ')}"
        offset = {"xytext": (4, 2), "textcoords": "offset points"}
        axes.annotate(name, point, fontsize=5.5, color=INK, **offset)
    axes.set_xscale("log")
    axes.margins(x=0.2)
    axes.set_xlabel("milliseconds")
    axes.set_ylabel("top-1 accuracy (%)")
    path = pathlib.Path(path)
    form = path.suffix.lstrip(".") or None
    write_atomically(path, lambda file: figure.savefig(file, format=form))
