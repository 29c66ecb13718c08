"""Plots accuracy against the time of one image, from the table of `lsmha bench latency`."""

import pathlib

from lsmha_keras.errors import InputError
from lsmha_keras.figure_style import INK, MUTED, NOISE, SIGNAL, draws, new_figure
from lsmha_keras.files import write_atomically
from lsmha_keras.presets import ALIASES
from lsmha_keras.text_files import read_rows

# Method of Keras -> marker; runtime of `Predictor` -> colour.
_KERAS = {"predict": "s", "predict_on_batch": "D"}
_COLORS = {"openvino": SIGNAL, "onnxruntime": "#009e73", "keras": NOISE}


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
    needed = ("what", "way", "accuracy", "median_ms", "machine")
    rows = [
        row
        for row in read_rows(table, needed)
        if row["what"] == "one image" and row["accuracy"] and row["median_ms"]
    ]
    if not rows:
        raise InputError(
            "The table must have rows of one image with an accuracy; `--calibration` measures it. "
            f"Received: {table}"
        )
    note = f"One uint8 image at a time, medians. {rows[0]['machine']}."
    figure = new_figure(6.4, 3.6, "How long one image takes, and how often it is right", note)
    axes = figure.subplots()
    axes.set_xscale("log")
    for way in dict.fromkeys(row["way"] for row in rows):
        points = [_point(row) for row in rows if row["way"] == way]
        axes.plot(*zip(*points, strict=True), label=way, linestyle="none", **_marker(way))
    _name_presets(axes, rows)
    _label_axes(axes, [_point(row)[0] for row in rows])
    figure.legend(loc="outside right center")
    path = pathlib.Path(path)
    form = path.suffix.lstrip(".") or None
    write_atomically(path, lambda file: figure.savefig(file, format=form))


def _point(row):
    return float(row["median_ms"]), float(row["accuracy"])


def _marker(way):
    """Returns the marker of a way: grey for Keras's own methods, hollow in int8."""
    if way in _KERAS:
        hollow = {"markerfacecolor": "none", "markersize": 8}
        return {"marker": _KERAS[way], "color": MUTED, **hollow}
    runtime, *precision = way.removeprefix("Predictor, ").split(", ")
    filled = {"markerfacecolor": "none"} if precision else {}
    return {"marker": "o", "color": _COLORS.get(runtime, INK), "markersize": 6, **filled}


def _name_presets(axes, rows):
    """Writes each preset's name, or its alias, above its fastest point."""
    aliases = {name: alias for alias, name in ALIASES.items()}
    for preset in dict.fromkeys(row["preset"] for row in rows):
        point = min(_point(row) for row in rows if row["preset"] == preset)
        place = {"xytext": (-3, 7), "textcoords": "offset points"}
        axes.annotate(aliases.get(preset, preset), point, color=INK, fontweight="bold", **place)


def _label_axes(axes, milliseconds):
    from matplotlib.ticker import FixedLocator, NullLocator, StrMethodFormatter

    steps = [step * 10**power for power in range(-3, 6) for step in (1, 2, 5)]
    low, high = min(milliseconds) / 1.3, max(milliseconds) * 1.3
    inside = [step for step in steps if low <= step <= high]
    axes.xaxis.set_major_locator(FixedLocator(inside))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
    axes.set_xlim(low, high)
    axes.margins(y=0.2)
    axes.grid(axis="y", color=MUTED, alpha=0.3)
    axes.set_xlabel("milliseconds (logarithmic)")
    axes.set_ylabel("top-1 accuracy (%)")
