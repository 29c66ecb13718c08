"""Draws accuracy against cost."""

import math

from lsmha_keras.shp._style import INK, MUTED, draws, new_figure
from lsmha_keras.studies.trial_points import pareto_front, trial_points

_LABELS = {
    "latency_ms": "latency of one image (ms)",
    "memory_mib": "memory of one image (MiB)",
    "parameters": "parameters",
    "multiply_adds": "multiply-adds of one image",
    "train_seconds": "training (s)",
    "val_accuracy": "validation accuracy (%)",
}
_MARKERS = "os^Dvp*"


@draws
def plot_front(rows, cost="latency_ms", value="val_accuracy"):
    """Draws every trial's accuracy against its cost, and the front of those that none beats.

    Colour is the number of heads, where there is one for all blocks; shape the number of
    convolutional blocks; bars are the standard deviation over executions.

    Args:
        rows: list of dicts, rows of a study's table.
        cost: str, a column.
        value: str, a column.

    Returns:
        A `matplotlib.figure.Figure`.

    Raises:
        ImportError: if matplotlib is missing.
        ValueError: if no trial was completed, or a column is unknown.

    Example:

    ```python
    plot_front(result.rows).savefig("front.png")
    ```
    """
    points = trial_points(rows, cost, value)
    infeasible = sum(row["status"] == "infeasible" for row in rows)
    note = f"{len(points)} trials" + (f", {infeasible} more above the budget" if infeasible else "")
    figure = new_figure(6.4, 4.2, f"{rows[0]['study']}: what a trial costs and reaches", note)
    axes = figure.add_subplot()
    scale = 100 if value.endswith("accuracy") else 1
    front = pareto_front(points)
    axes.plot(
        [point.cost for point in front],
        [scale * point.value for point in front],
        color=INK,
        linewidth=1.2,
        drawstyle="steps-post",
        zorder=1,
        label="no trial is cheaper and as good",
    )
    _draw_points(figure, axes, points, scale)
    axes.set_xlabel(_LABELS.get(cost, cost))
    axes.set_ylabel(_LABELS.get(value, value))
    axes.legend(loc="lower right")
    return figure


def _draw_points(figure, axes, points, scale):
    heads = [point.hyperparameters.get("num_heads") for point in points]
    colored = all(isinstance(count, int) for count in heads)
    levels = sorted(set(heads)) if colored else []
    conv = sorted({point.hyperparameters.get("num_conv_blocks", 0) for point in points})
    for point in points:
        color = _color(levels, point.hyperparameters["num_heads"]) if colored else INK
        blocks = point.hyperparameters.get("num_conv_blocks", 0)
        axes.errorbar(
            point.cost,
            scale * point.value,
            yerr=None if point.spread is None else scale * point.spread,
            marker=_MARKERS[conv.index(blocks) % len(_MARKERS)],
            color=color,
            ecolor=MUTED,
            elinewidth=0.8,
            markersize=6,
            linestyle="none",
            zorder=2,
        )
    for count in levels:
        axes.plot([], [], "o", color=_color(levels, count), label=f"{count} heads")
    if len(conv) > 1:
        for index, blocks in enumerate(conv):
            marker = _MARKERS[index % len(_MARKERS)]
            axes.plot([], [], marker, color=MUTED, label=f"{blocks} convolutional blocks")


def _color(levels, count):
    from matplotlib import colormaps

    place = [math.log2(level) for level in levels]
    span = place[-1] - place[0]
    share = (math.log2(count) - place[0]) / span if span else 0.5
    return colormaps["viridis"](0.05 + 0.85 * share)
