"""Artificial results with every case that a report must handle."""

import numpy as np

from lsmha_keras.shp.shp_result import SHPResult

HEADS, LABELS, BLOCKS = 5, 24, (1, 2)
MISSING, DEAD = 7, 3
NAMES = [f"thing_{i}" for i in range(LABELS)]


def make_results(signal, seed, accuracy=0.5):
    """Two blocks; the second with a head that is dead and a label without images."""
    return {block: _make_result(block, signal * block, seed, accuracy) for block in BLOCKS}


def _make_result(block, signal, seed, accuracy):
    rng = np.random.default_rng((seed, block))
    means = rng.normal(size=(HEADS, LABELS, LABELS))
    for head in range(HEADS):
        for cluster in np.split(rng.permutation(LABELS)[:9], 3):
            means[head][np.ix_(cluster, cluster)] += signal
    counts = np.full(LABELS, 10)
    if block == 2:
        means[DEAD] = -abs(means[DEAD])
        means[:, MISSING] = np.nan
        counts[MISSING] = 0
    return SHPResult(block, means, counts, label_names=NAMES, readout_accuracy=accuracy)


def make_report_inputs():
    """Returns results, controls and classical scores."""
    controls = {
        "Gaussian null": make_results(0, seed=1, accuracy=None),
        "untrained trunk": make_results(1, seed=2, accuracy=0.1),
    }
    scores = {
        block: {"accuracy_drop": np.linspace(-0.1, 0.3, HEADS), "mask_gradient": np.zeros(HEADS)}
        for block in BLOCKS
    }
    return make_results(4, seed=0), controls, scores
