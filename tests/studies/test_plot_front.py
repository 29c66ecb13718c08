"""What the figure of a study shows, read back from what was drawn."""

import numpy as np
import pytest

from lsmha_keras.studies.plot_front import plot_front
from tests.studies.rows import ROWS, row

pytest.importorskip("matplotlib", reason='figures need pip install "lsmha-keras[plots]"')

pytestmark = pytest.mark.backend_free


def test_plot(tmp_path):
    figure = plot_front(ROWS, tmp_path / "front.png")
    axes, bar = figure.axes
    np.testing.assert_allclose(axes.lines[0].get_xydata(), [[1, 40], [2, 52], [4, 60]])
    # The bar of trial 0: 0.50 and 0.54 are 0.02 * sqrt(2) around 0.52.
    (spread,) = [c for c in axes.collections if len(c.get_segments())]
    np.testing.assert_allclose(spread.get_segments()[0][:, 1], 52 + np.array([-2, 2]) * 2**0.5)
    assert [text.get_text() for text in bar.get_yticklabels()] == ["2", "4", "8"]
    places = bar.transData.transform([(1, 2), (1, 4), (1, 8)])[:, 1]
    assert places[1] - places[0] == pytest.approx(places[2] - places[1])  # equal steps: log2
    assert bar.get_ylabel() == "heads"
    assert axes.get_xlabel() == "latency of one image (ms)"
    assert axes.get_ylabel() == "validation accuracy (%)"
    assert (tmp_path / "front.png").stat().st_size > 5000


def test_plot_puts_what_is_infeasible_at_the_edge():
    more = [
        row("6", 3.5, None, status="infeasible"),
        row("7", None, None, status="infeasible"),
        row("7", None, None, execution=1, status="infeasible"),
    ]
    figure = plot_front(ROWS + more)
    (crosses,) = [line for line in figure.axes[0].lines if line.get_marker() == "x"]
    # Trained ones cost 1 to 4: what costs 9 stands at 4 + 6 % of 3. Trial 7 was never measured.
    np.testing.assert_allclose(crosses.get_xydata(), [[4.18, 0.02], [3.5, 0.02]])
    assert "4 trials, 3 more above the budget" in [text.get_text() for text in figure.texts]


@pytest.mark.parametrize(
    ("settings", "ticks"),
    [
        ([{"num_heads_0": 2, "num_heads_1": 4}, {"num_heads_0": 16, "num_heads_1": 4}], [3, 10]),
        ([{"num_heads_first": 4, "num_heads_last": 12}], [8]),
        ([{"learning_rate": 0.1}], None),
    ],
)
def test_plot_colours_by_the_mean_where_blocks_differ(settings, ticks):
    rows = [
        row(str(i), 1.0 + i, 0.5, heads=None) | {f"hp.{key}": v for key, v in found.items()}
        for i, found in enumerate(settings)
    ]
    _, *bars = plot_front(rows).axes
    assert [list(bar.get_yticks()) for bar in bars] == ([] if ticks is None else [ticks])
    assert all("mean" in bar.get_ylabel() for bar in bars)


def test_legend_covers_no_trial():
    rows = [row(f"{i:02}", 1.0 + i, 0.5, heads=2**i) | {"hp.num_conv_blocks": i} for i in range(5)]
    figure = plot_front(rows + [row("9", 9.0, None, status="infeasible")])
    figure.draw_without_rendering()  # lays it out
    (legend,) = figure.legends
    box = legend.get_window_extent()
    assert not box.overlaps(figure.axes[0].get_window_extent())
    assert 0 <= box.x0 and box.x1 <= figure.bbox.x1
