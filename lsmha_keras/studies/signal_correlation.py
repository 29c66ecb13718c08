"""Whether a signal from the heads tells the accuracy of a trial."""

import dataclasses

import numpy as np

from lsmha_keras.studies.trial_points import trial_points

_RESAMPLES = 2000


@dataclasses.dataclass(frozen=True)
class SignalCorrelation:
    """Spearman's rank correlation over trials.

    Attributes:
        signal: str, the column.
        rho: float in -1 .. 1; NaN if one of the two never changes.
        low: float, 2.5 % of the bootstrap over trials.
        high: float, 97.5 %.
        trials: int.
    """

    signal: str
    rho: float
    low: float
    high: float
    trials: int

    def __str__(self):
        return (
            f"{self.signal}: rho {self.rho:.2f} (95 % interval {self.low:.2f} to {self.high:.2f}, "
            f"{self.trials} trials)"
        )


def signal_correlation(rows, signal, value="val_accuracy", seed=0):
    """Correlates a signal's ranks with those of the accuracy, over completed trials.

    Args:
        rows: list of dicts, rows of a study's table.
        signal: str, a column such as "shp_snr".
        value: str, a column.
        seed: int, of the bootstrap.

    Returns:
        A `SignalCorrelation`.

    Raises:
        ValueError: with fewer than four trials.

    Example:

    ```python
    print(signal_correlation(result.rows, "shp_readout_accuracy"))
    ```
    """
    points = trial_points(rows, cost=signal, value=value)
    if len(points) < 4:
        raise ValueError(f"A rank correlation needs at least 4 trials. Received: {len(points)}")
    pairs = np.array([(point.cost, point.value) for point in points])
    rng = np.random.default_rng(seed)
    draws = rng.integers(len(pairs), size=(_RESAMPLES, len(pairs)))
    rhos = [_spearman(pairs[draw]) for draw in draws]
    rhos = [rho for rho in rhos if not np.isnan(rho)]  # a draw may hold one trial many times
    low, high = np.percentile(rhos, [2.5, 97.5]) if rhos else (np.nan, np.nan)
    return SignalCorrelation(signal, _spearman(pairs), float(low), float(high), len(pairs))


def _spearman(pairs):
    ranks = [_ranks(column) for column in pairs.T]
    if any(np.ptp(column) == 0 for column in ranks):
        return float("nan")
    return float(np.corrcoef(ranks)[0, 1])


def _ranks(values):
    """Ranks from 1; equal values share the mean of their ranks."""
    _, places, counts = np.unique(values, return_inverse=True, return_counts=True)
    return (np.cumsum(counts) - (counts - 1) / 2)[places]
