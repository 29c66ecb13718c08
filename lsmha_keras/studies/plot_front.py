"""Plots the accuracy of a study's trials against their cost."""

import pathlib
import statistics

from lsmha_keras.figure_style import INK, MUTED, draws, new_figure
from lsmha_keras.files import write_atomically
from lsmha_keras.studies.execution_table import pareto_front, trial_points

_LABELS = {
    "latency_ms": "latency of one image (ms)",
    "memory_mib": "memory of one image (MiB)",
    "parameters": "parameters",
    "multiply_adds": "multiply-adds of one image",
    "train_seconds": "training (s)",
    "val_accuracy": "validation accuracy (%)",
}
_MARKERS = "os^Dvp*"
# Infeasible trials beyond the costs of the others are drawn this share of the range to the right.
_EDGE = 0.06


@draws
def plot_front(rows, path=None, cost="latency_ms", value="val_accuracy"):
    """Plots every trial's accuracy against its cost, with the Pareto front.

    Colour shows the number of heads (the mean if blocks differ), shape the number of convolutional
    blocks, and bars the standard deviation over executions. Crosses at the lower edge are trials
    above the budget, which were not trained; the rightmost ones may cost more than the axis shows.

    Args:
        rows: list of dicts, rows of a study's table.
        path: path of an image to write, or None.
        cost: str, name of a column.
        value: str, name of a column.

    Returns:
        A `matplotlib.figure.Figure`.

    Raises:
        ImportError: if matplotlib is missing.
        ValueError: if no trial is complete, or a column is unknown.

    Example:

    ```python
    plot_front(result.rows, "front.png")
    ```
    """
    points = trial_points(rows, cost, value)
    infeasible = {(row["study"], row["trial"]) for row in rows if row["status"] == "infeasible"}
    note = f"{len(points)} trial{'' if len(points) == 1 else 's'}"
    note += f", {len(infeasible)} more above the budget" if infeasible else ""
    figure = new_figure(6.4, 4.8, f"{rows[0]['study']}: what a trial costs and reaches", note)
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
    _draw_infeasible(axes, rows, points, cost)
    axes.set_xlabel(_LABELS.get(cost, cost))
    axes.set_ylabel(_LABELS.get(value, value))
    # Below the axes, where it covers no trial.
    figure.legend(*axes.get_legend_handles_labels(), loc="outside lower left", ncols=3)
    if path is not None:
        path = pathlib.Path(path)
        suffix = path.suffix.lstrip(".") or None
        write_atomically(path, lambda file: figure.savefig(file, format=suffix))
    return figure


def _draw_points(figure, axes, points, scale):
    heads = [_mean_heads(point.hyperparameters) for point in points]
    colors = None if None in heads else _head_colors(heads)
    conv = sorted({point.hyperparameters.get("num_conv_blocks", 0) for point in points})
    for point, count in zip(points, heads, strict=True):
        blocks = point.hyperparameters.get("num_conv_blocks", 0)
        axes.errorbar(
            point.cost,
            scale * point.value,
            yerr=None if point.spread is None else scale * point.spread,
            marker=_MARKERS[conv.index(blocks) % len(_MARKERS)],
            color=INK if colors is None else colors.to_rgba(count),
            ecolor=MUTED,
            elinewidth=0.8,
            markersize=6,
            linestyle="none",
            zorder=2,
        )
    if colors is not None:
        single = all("num_heads" in point.hyperparameters for point in points)
        label = "heads" if single else "heads, mean of the counts searched"
        _draw_head_bar(figure, axes, colors, heads, label)
    if len(conv) > 1:
        for index, blocks in enumerate(conv):
            marker = _MARKERS[index % len(_MARKERS)]
            name = f"{blocks} convolutional block{'' if blocks == 1 else 's'}"
            axes.plot([], [], marker, color=MUTED, label=name)


def _mean_heads(hyperparameters):
    """Returns the number of heads, or the mean if the blocks were searched separately."""
    single = hyperparameters.get("num_heads")
    counts = [single] if single is not None else []
    counts += [v for name, v in hyperparameters.items() if name.startswith("num_heads_")]
    usable = counts and all(isinstance(count, (int, float)) and count > 0 for count in counts)
    return statistics.fmean(counts) if usable else None


def _head_colors(heads):
    from matplotlib import colormaps
    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import ListedColormap, LogNorm

    # Without the lightest colours, which hardly show on white.
    colormap = ListedColormap(colormaps["viridis"](range(10, 230)))
    low, high = min(heads), max(heads)
    if low == high:
        low, high = low / 2, high * 2
    return ScalarMappable(LogNorm(low, high), colormap)


def _draw_head_bar(figure, axes, colors, heads, label):
    levels = sorted(set(heads))
    if len(levels) > 8 or any(level != int(level) for level in levels):
        low, high = min(levels), max(levels)
        levels = [2**power for power in range(12) if low <= 2**power <= high] or [low, high]
    bar = figure.colorbar(colors, ax=axes, aspect=30, pad=0.02)
    bar.set_ticks(levels, labels=[f"{level:g}" for level in levels], minor=False)
    bar.minorticks_off()
    bar.set_label(label)
    bar.outline.set_visible(False)


def _draw_infeasible(axes, rows, points, cost):
    costs = {
        (row["study"], row["trial"]): row[cost]
        for row in rows
        if row["status"] == "infeasible" and row.get(cost) is not None
    }
    if not costs:
        return
    low, high = min(point.cost for point in points), max(point.cost for point in points)
    # Distant ones would squeeze the completed trials together.
    edge = high + _EDGE * ((high - low) or high)
    axes.plot(
        [min(found, edge) for found in costs.values()],
        [0.02] * len(costs),
        "x",
        transform=axes.get_xaxis_transform(),
        color=MUTED,
        alpha=0.6,
        markersize=5,
        label="above the budget",
    )
