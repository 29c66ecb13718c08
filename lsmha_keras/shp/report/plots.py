"""Figures of single-head performance. None of them needs a display."""

import math

import numpy as np

from lsmha_keras.figure_style import (
    EMPTY,
    INK,
    NOISE,
    SIGNAL,
    draws,
    line_style,
    listed_colors,
    new_figure,
    response_colors,
    swatches,
)
from lsmha_keras.shp.report.tables import label_names, labels_covered

# Cluster sizes 1, 2, 3 and more: from light to dark.
_SIZES = {"1 label": "#a8cdea", "2 labels": "#4e97d1", "3 labels": "#0b5fa5", "more": "#062a4a"}

_BY_BLOCK = {
    "readout accuracy (%)": lambda result: _percent(result.readout_accuracy),
    "signal-to-noise ratio": lambda result: result.snr,
    "clusters per head": lambda result: np.mean(result.statistics.num_clusters),
    "noise per head": lambda result: result.noise,
}
_ORDER = (
    "Labels: the head's clusters first, the larger ones before; then the others, as in the data."
)
_BY_THRESHOLD = {name: value for name, value in _BY_BLOCK.items() if "accuracy" not in name}


@draws
def plot_matrices(result, heads=None):
    """Plots the normalised responses of every head, with its clusters first.

    Args:
        result: `SHPResult` of a block.
        heads: list of the heads to draw; a single one is drawn with the labels' names. Defaults to
            all.

    Returns:
        A `matplotlib.figure.Figure`.

    Raises:
        ImportError: if matplotlib is missing.

    Example:

    ```python
    plot_matrices(results[1]).savefig("block_1.png")
    ```
    """
    title = f"Block {result.block}: what each head answers to each label"
    note = f"Row: label of the input. Column: output unit. {_ORDER}"
    figure, panels = _head_panels(result, heads, title, note)
    for axes, head, order in panels:
        matrix = result.matrices[head][np.ix_(order, order)]
        drawn = axes.imshow(matrix, cmap=response_colors(), vmin=-1, vmax=1)
    bar = figure.colorbar(
        drawn, ax=figure.axes, location="bottom", shrink=0.4, aspect=40, pad=0.01, ticks=[-1, 0, 1]
    )
    bar.set_label("mean field / the head's maximum")
    bar.outline.set_visible(False)
    return figure


@draws
def plot_boolean(result, heads=None):
    """Plots which responses exceed the threshold, on clusters and elsewhere (noise).

    Args:
        result: `SHPResult` of a block.
        heads: list of the heads to draw; a single one is drawn with the labels' names. Defaults to
            all.

    Returns:
        A `matplotlib.figure.Figure`.

    Raises:
        ImportError: if matplotlib is missing.

    Example:

    ```python
    plot_boolean(results[1].at(0.4), heads=[3])
    ```
    """
    title = f"Block {result.block}: responses above {result.threshold:g}"
    note = f"Blue: on a cluster. Orange: noise. Row: label of the input. {_ORDER}"
    figure, panels = _head_panels(result, heads, title, note)
    for axes, head, order in panels:
        cells = result.boolean[head].astype("int8")
        for cluster in result.clusters[head]:
            cells[np.ix_(cluster, cluster)] = 2
        colors = listed_colors("white", NOISE, SIGNAL)
        axes.imshow(cells[np.ix_(order, order)], cmap=colors, vmin=0, vmax=2)
    return figure


@draws
def plot_coverage(result, controls=None):
    """Plots how many heads cover each label, beside the controls.

    Args:
        result: `SHPResult` of a block.
        controls: dict from a name to the `SHPResult` of the same block under that control.

    Returns:
        A `matplotlib.figure.Figure`.

    Raises:
        ImportError: if matplotlib is missing.

    Example:

    ```python
    plot_coverage(results[1], {"Gaussian null": null[1]})
    ```
    """
    order = np.argsort(-np.asarray(result.coverage), kind="stable")
    title = f"Block {result.block}: how many of its {len(result.matrices)} heads cover each label"
    figure = new_figure(3.5 + 0.125 * max(len(order), 30), 4.4, title)
    bars, shares = figure.subplots(1, 2, width_ratios=(max(2, len(order) / 25), 1), sharey=True)
    bars.bar(range(len(order)), result.coverage[order], width=0.8, color=SIGNAL)
    for i, (name, drawn) in enumerate({"trained": result, **(controls or {})}.items()):
        coverage = drawn.coverage[drawn.label_counts > 0]
        counts = np.bincount(coverage)
        shares.stairs(
            100 * counts / counts.sum(),
            np.arange(len(counts) + 1) - 0.5,
            orientation="horizontal",
            linewidth=1.8,
            label=f"{name} (mean {np.mean(coverage):.1f})",
            **line_style(i),
        )
        bars.axhline(np.mean(coverage), linewidth=1.2, **line_style(i))
    _name_labels(bars.xaxis, result, order)
    bars.set(ylabel="heads", xlim=(-0.7, len(order) - 0.3), ylim=(0, None))
    bars.set_title("each label, the most covered first; horizontal lines: means", loc="left")
    shares.set(xlabel="labels (%)", xlim=(0, None))
    shares.set_title("distribution over labels", loc="left")
    figure.legend(*shares.get_legend_handles_labels(), loc="outside lower left", ncols=3)
    return figure


@draws
def plot_head_label_map(result):
    """Plots which head covers which label, and the size of the cluster.

    Args:
        result: `SHPResult` of a block.

    Returns:
        A `matplotlib.figure.Figure`.

    Raises:
        ImportError: if matplotlib is missing.

    Example:

    ```python
    plot_head_label_map(results[1])
    ```
    """
    sizes = _cluster_sizes(result)  # (heads, labels)
    order = np.argsort(-np.asarray(result.coverage), kind="stable")
    num_heads, num_labels = sizes.shape
    title = f"Block {result.block}: which head covers which label"
    figure = new_figure(3 + 0.125 * max(num_labels, 40), 2.2 + 0.17 * num_heads, title)
    cells, bars = figure.subplots(1, 2, width_ratios=(max(4, num_labels / 9), 1), sharey=True)
    colors = listed_colors(EMPTY, *_SIZES.values())
    image = np.minimum(sizes[:, order], len(_SIZES))
    cells.pcolormesh(image, cmap=colors, vmin=0, vmax=len(_SIZES), edgecolor="white", linewidth=0.6)
    _name_labels(cells.xaxis, result, order, offset=0.5)
    cells.set_yticks(np.arange(num_heads) + 0.5, range(num_heads))
    cells.tick_params(length=0)
    cells.set(ylabel="head", xlabel="label, the most covered first")
    cells.invert_yaxis()
    covered = labels_covered(result)
    bars.barh(np.arange(num_heads) + 0.5, covered, height=0.7, color=SIGNAL)
    bars.bar_label(bars.containers[0], padding=2, fontsize=7)
    bars.set(xlabel="labels covered", xlim=(0, 1.25 * max(covered.max(), 1)))
    handles = swatches(_SIZES.values(), [f"in a cluster of {name}" for name in _SIZES])
    figure.legend(handles=handles, loc="outside lower left", ncols=len(_SIZES))
    return figure


@draws
def plot_along_blocks(results, controls=None, accuracy=None):
    """Plots readout accuracy, SNR, clusters and noise of each block, beside the controls.

    Args:
        results: `{block: SHPResult}`.
        controls: dict from a name to such a dict.
        accuracy: float in 0 .. 1, of the model itself, or `None`.

    Returns:
        A `matplotlib.figure.Figure`.

    Raises:
        ImportError: if matplotlib is missing.

    Example:

    ```python
    plot_along_blocks(results, {"untrained trunk": untrained})
    ```
    """
    blocks = sorted(results)
    series = {
        name: [by_block[block] for block in blocks]
        for name, by_block in {"trained": results, **(controls or {})}.items()
    }
    figure = _line_panels(series, blocks, _BY_BLOCK, "Along the blocks")
    if accuracy is not None:
        axes = figure.axes[0]
        axes.set_ylim(0, max(axes.get_ylim()[1], 110 * accuracy))
        axes.axhline(100 * accuracy, color=INK, linewidth=0.8)
        axes.text(
            0.02,
            100 * accuracy,
            "the model itself",
            transform=axes.get_yaxis_transform(),
            fontsize=7,
            va="bottom",
        )
    for axes in figure.axes:
        axes.set(xlabel="block", xticks=blocks)
    return figure


@draws
def plot_threshold_sweep(result, thresholds, controls=None):
    """Plots SNR, clusters and noise of a block at several thresholds, beside the controls.

    Args:
        result: `SHPResult` of a block.
        thresholds: list of floats.
        controls: dict from a name to the `SHPResult` of the same block under that control.

    Returns:
        A `matplotlib.figure.Figure`.

    Raises:
        ImportError: if matplotlib is missing.

    Example:

    ```python
    plot_threshold_sweep(results[1], [0.2, 0.3, 0.4, 0.5, 0.6])
    ```
    """
    series = {
        name: [swept.at(threshold) for threshold in thresholds]
        for name, swept in {"trained": result, **(controls or {})}.items()
    }
    title = f"Block {result.block} at other thresholds"
    figure = _line_panels(series, thresholds, _BY_THRESHOLD, title)
    for axes in figure.axes:
        axes.set(xlabel="threshold")
    return figure


def cluster_order(clusters, num_labels):
    """Orders labels so that clusters form squares on the diagonal.

    Args:
        clusters: list of lists of labels.
        num_labels: int.

    Returns:
        List of all labels: those of larger clusters first, those in no cluster last.

    Example:
        >>> cluster_order([[1], [0, 3]], 5)
        [0, 3, 1, 2, 4]
    """
    first = [label for cluster in sorted(clusters, key=len, reverse=True) for label in cluster]
    return first + sorted(set(range(num_labels)) - set(first))


def _head_panels(result, heads, title, note):
    """Lays out one panel a head; returns the figure and (axes, head, label order) of each."""
    heads = list(range(len(result.matrices))) if heads is None else list(heads)
    columns = math.ceil(math.sqrt(len(heads)))
    rows = math.ceil(len(heads) / columns)
    side = max(1.5, 9 / columns)
    figure = new_figure(columns * side + 0.2, rows * (side + 0.2) + 1.2, title, note)
    grid = figure.subplots(rows, columns, squeeze=False).ravel()
    orders = [cluster_order(result.clusters[head], result.matrices.shape[-1]) for head in heads]
    for axes in grid[len(heads) :]:
        axes.remove()
    for axes, head, order in zip(grid, heads, orders, strict=False):
        axes.set(xticks=[], yticks=[])
        axes.spines[:].set_visible(True)
        axes.set_title(_caption(result, head), fontsize=7 if columns < 7 else 6, loc="left", pad=3)
        _frame_clusters(axes, result.clusters[head])
        if len(heads) == 1:
            _name_labels(axes.xaxis, result, order)
            _name_labels(axes.yaxis, result, order)
    return figure, list(zip(grid, heads, orders, strict=False))


def _caption(result, head):
    if result.dead[head]:
        return f"head {head}: dead"
    found = result.statistics
    return f"head {head}: {found.num_clusters[head]} clusters, noise {found.noise[head]}"


def _frame_clusters(axes, clusters):
    from matplotlib.patches import Rectangle

    corner = -0.5
    for cluster in sorted(clusters, key=len, reverse=True):
        if len(cluster) > 1:  # a frame would hide a single cell
            square = Rectangle(
                (corner, corner), len(cluster), len(cluster), fill=False, color=INK, linewidth=0.7
            )
            axes.add_patch(square)
        corner += len(cluster)


def _name_labels(axis, result, order, offset=0.0):
    names = label_names(result)
    is_x = axis.axis_name == "x"
    size = 8 if len(order) <= 20 else 5.5
    axis.set_ticks(
        np.arange(len(order)) + offset,
        [names[label] for label in order],
        fontsize=size,
        rotation=90 if is_x else 0,
    )


def _cluster_sizes(result):
    sizes = np.zeros(result.matrices.shape[:2], dtype="int64")
    for head, clusters in enumerate(result.clusters):
        for cluster in clusters:
            sizes[head, cluster] = len(cluster)
    return sizes


def _line_panels(series, x, panels, title):
    """Draws a panel for each statistic with a line for each series of results."""
    figure = new_figure(2.7 * len(panels) + 0.3, 3.1, title)
    grid = figure.subplots(1, len(panels))
    for axes, (label, statistic) in zip(grid, panels.items(), strict=True):
        for i, (name, results) in enumerate(series.items()):
            values = np.array([statistic(result) for result in results], "float64")
            axes.plot(x, values, marker="o", label=name, **line_style(i))
        axes.set_title(label, loc="left")
        axes.set_ylim(0, None)
    figure.legend(*axes.get_legend_handles_labels(), loc="outside lower left", ncols=len(series))
    return figure


def _percent(share):
    return None if share is None else 100 * share
