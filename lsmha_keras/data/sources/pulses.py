"""Made-up series whose class is known from the values: a check of models of series."""

import numpy as np

from lsmha_keras.data.sequences import SequenceDataset

SPLITS = ("train", "test")
_COUNTS = {"train": 2000, "test": 500}
_STEPS, _FAR = 32, 8
_CLASS_NAMES = ["first, near", "first, far", "second, near", "second, far"]


def open_pulses(base):
    """Makes series of two noisy features with one pulse in each.

    The class tells in which feature the pulse comes first, and whether the other one follows within
    8 steps: it depends on two places and their order, on nothing else. The pulse stands 15 standard
    deviations above the noise, so an answer that looks for the largest values is always right.

    Args:
        base: "train", 2,000 series, or "test", 500.

    Returns:
        A `SequenceDataset` of series `(32, 2)`, always the same.
    """
    count = _COUNTS[base]
    rng = np.random.default_rng(SPLITS.index(base))
    series = rng.normal(0, 0.1, (count, _STEPS, 2))
    # Two different places: the second one is drawn from those that are left.
    places = np.stack([rng.permutation(_STEPS)[:2] for _ in range(count)])
    np.put_along_axis(series, places[:, None], 1.5, axis=1)
    gaps = places[:, 1] - places[:, 0]
    labels = 2 * (gaps < 0) + (abs(gaps) > _FAR)
    return SequenceDataset(series, labels, _CLASS_NAMES, "pulses")
