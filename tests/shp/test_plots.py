"""What the figures show, read back from what was drawn."""

import itertools
import sys

import numpy as np
import pytest

from lsmha_keras.shp.controls import THRESHOLDS
from lsmha_keras.shp.report import plots
from tests.shp.results import BLOCKS, DEAD, HEADS, LABELS, MISSING, NAMES, make_report_inputs

pytest.importorskip("matplotlib", reason='figures need pip install "lsmha-keras[plots]"')

pytestmark = pytest.mark.backend_free


@pytest.fixture(scope="module")
def made():
    return make_report_inputs()


@pytest.mark.parametrize(
    ("clusters", "num_labels", "order"),
    [
        ([], 3, [0, 1, 2]),
        ([[1], [0, 3]], 5, [0, 3, 1, 2, 4]),
        ([[0, 1], [2, 4], [3]], 5, [0, 1, 2, 4, 3]),
    ],
)
def test_clusters_come_first_the_largest_ones_before_others(clusters, num_labels, order):
    assert plots.cluster_order(clusters, num_labels) == order


def test_matrices_have_clusters_on_the_diagonal(made):
    result = made[0][2]
    panels = _panels(plots.plot_matrices(result))
    assert len(panels) == HEADS
    for head, axes in enumerate(panels):
        drawn = axes.images[0].get_array()
        assert _squares(axes) == sorted([len(c) for c in result.clusters[head] if len(c) > 1])[::-1]
        for corner, size in _corners(axes):
            assert (drawn[corner : corner + size, corner : corner + size] > 0.3).all()
        np.testing.assert_allclose(
            np.sort(drawn.compressed()), np.sort(_known(result.matrices[head]))
        )
        caption = f"{result.statistics.num_clusters[head]} clusters, "
        caption += f"noise {result.statistics.noise[head]}"
        assert axes.get_title("left") == f"head {head}: {'dead' if head == DEAD else caption}"


def test_boolean_cells_are_counted_like_the_statistics(made):
    result = made[0][2].at(0.4)
    for head, axes in enumerate(_panels(plots.plot_boolean(result))):
        drawn = np.asarray(axes.images[0].get_array())
        squares = sum(len(cluster) ** 2 for cluster in result.clusters[head])
        assert ((drawn == 2).sum(), (drawn == 1).sum()) == (squares, result.statistics.noise[head])


def test_chosen_head_has_names(made):
    (axes,) = _panels(plots.plot_boolean(made[0][1], heads=[2]))
    order = plots.cluster_order(made[0][1].clusters[2], LABELS)
    for axis in (axes.xaxis, axes.yaxis):
        assert [tick.get_text() for tick in axis.get_ticklabels()] == [NAMES[i] for i in order]


@pytest.mark.parametrize("block", BLOCKS)
def test_coverage_bars_are_sorted_and_named(made, block):
    """Means and shares are over labels with images; one of block 2 has none."""
    result, controls = made[0][block], made[1]
    others = {name: by_block[block] for name, by_block in controls.items()}
    figure = plots.plot_coverage(result, others)
    bars, shares = figure.axes
    heights = [bar.get_height() for bar in bars.patches]
    assert heights == sorted(result.coverage, reverse=True)
    names = [tick.get_text() for tick in bars.get_xticklabels()]
    assert [result.coverage[NAMES.index(name)] for name in names] == heights
    for i, drawn in enumerate([result, *others.values()]):
        values, edges, _ = shares.patches[i].get_data()
        assert values.sum() == pytest.approx(100)
        mean = (values * (edges[:-1] + edges[1:]) / 2).sum() / 100
        expected = drawn.coverage.sum() / (LABELS - (block == 2))
        assert mean == pytest.approx(expected)
        assert bars.lines[i].get_ydata()[0] == pytest.approx(expected)


def test_map_shows_the_size_of_each_labels_cluster(made):
    result = made[0][1]
    figure = plots.plot_head_label_map(result)
    drawn = np.asarray(figure.axes[0].collections[0].get_array()).reshape(HEADS, LABELS)
    names = [tick.get_text() for tick in figure.axes[0].get_xticklabels()]
    for head in range(HEADS):
        for column, name in enumerate(names):
            sizes = [len(c) for c in result.clusters[head] if NAMES.index(name) in c]
            assert drawn[head, column] == min(sum(sizes), 4)
    lengths = [bar.get_width() for bar in figure.axes[1].patches]
    assert lengths == [sum(map(len, clusters)) for clusters in result.clusters]


def test_lines_along_the_blocks(made):
    results, controls, _ = made
    accuracy, snr, clusters, noise = plots.plot_along_blocks(results, controls).axes
    for i, by_block in enumerate([results, *controls.values()]):
        ordered = [by_block[block] for block in BLOCKS]
        assert _line(snr, i) == pytest.approx([r.snr for r in ordered])
        assert _line(noise, i) == pytest.approx([r.noise for r in ordered])
        means = [r.statistics.num_clusters.mean() for r in ordered]
        assert _line(clusters, i) == pytest.approx(means)
    assert _line(accuracy, 0) == [50, 50]
    assert np.isnan(_line(accuracy, 1)).all()


def test_lines_along_the_thresholds(made):
    thresholds = [0.2, 0.4, 0.6]
    snr, _, noise = plots.plot_threshold_sweep(made[0][2], thresholds).axes
    assert _line(snr, 0) == pytest.approx([made[0][2].at(t).snr for t in thresholds])
    assert _line(noise, 0) == pytest.approx([made[0][2].at(t).noise for t in thresholds])


def test_tick_labels_do_not_overlap(made):
    figure = plots.plot_threshold_sweep(made[0][2], THRESHOLDS)
    figure.draw_without_rendering()
    for axes in figure.axes:
        boxes = [tick.get_window_extent() for tick in axes.get_xticklabels()]
        assert all(left.x1 < right.x0 for left, right in itertools.pairwise(boxes))


def test_missing_matplotlib_is_named(made, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(ImportError, match=r"lsmha-keras\[plots\]"):
        plots.plot_matrices(made[0][1])


def test_result_plots_itself(made, tmp_path):
    made[0][2].plot(heads=[0, 1]).savefig(tmp_path / "heads.png")
    assert (tmp_path / "heads.png").stat().st_size > 5000


def _panels(figure):
    return [axes for axes in figure.axes if axes.get_title("left")]


def _squares(axes):
    return [patch.get_width() for patch in axes.patches]


def _corners(axes):
    return [(int(patch.get_x() + 0.5), patch.get_width()) for patch in axes.patches]


def _known(matrix):
    return np.delete(matrix, MISSING, axis=0).ravel()


def _line(axes, index):
    return axes.lines[index].get_ydata().tolist()
