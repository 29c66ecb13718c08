"""Rank correlation of a signal and the accuracy."""

import numpy as np
import pytest

from lsmha_keras.studies.signal_correlation import signal_correlation
from tests.studies.rows import row

pytestmark = pytest.mark.backend_free


def test_correlation_of_ranks():
    # Spearman's formula without ties: 1 - 6 sum(d^2) / (n (n^2 - 1)), d = 0, 0, 1, 1, 0.
    rows = [
        row(str(i), 1.0, accuracy, shp_snr=signal)
        for i, (signal, accuracy) in enumerate([(1, 0.1), (2, 0.2), (3, 0.4), (40, 0.3), (50, 0.5)])
    ]
    found = signal_correlation(rows, "shp_snr")
    assert found.rho == pytest.approx(1 - 6 * 2 / (5 * 24))
    assert found.low < found.rho <= found.high <= 1 and found.trials == 5
    with pytest.raises(ValueError, match="at least 4 trials. Received: 3"):
        signal_correlation(rows[:3], "shp_snr")


@pytest.mark.filterwarnings("error")
def test_a_signal_that_never_changes_tells_nothing():
    rows = [row(str(i), 1.0, i / 10, shp_snr=1) for i in range(4)]
    found = signal_correlation(rows, "shp_snr")
    assert np.isnan([found.rho, found.low, found.high]).all() and found.trials == 4


def test_correlation_of_tied_ranks_is_that_of_scipy():
    stats = pytest.importorskip("scipy.stats")
    signal, accuracy = np.random.default_rng(0).integers(0, 6, (2, 30)).tolist()
    rows = [
        row(f"{i:02}", 1.0, y, shp_snr=x)
        for i, (x, y) in enumerate(zip(signal, accuracy, strict=True))
    ]
    expected = stats.spearmanr(signal, accuracy).statistic
    assert signal_correlation(rows, "shp_snr").rho == pytest.approx(expected)
