"""Heads constructed to recognise known labels have exactly these clusters."""

import numpy as np
import pytest

from lsmha_keras.shp.performance import single_head_performance
from lsmha_keras.shp.readout_trainer import fit_readout
from lsmha_keras.shp.readouts import BlockReadouts
from tests.shp.models import LabelHeads, grey_images

NUM_LABELS = 8
LABELS = np.arange(240) % NUM_LABELS
DATA = (grey_images(LABELS), LABELS)

# For each head the sets of labels it cannot tell apart; labels in none of them it does not see.
PLANTED = [
    [[0, 1], [2]],
    [[3, 5, 7]],
    [[0], [4], [6]],
    [],
]


def features():
    """`(labels, heads, head_dim)`: feature k of a head is on for the labels of its set k."""
    result = np.zeros((NUM_LABELS, len(PLANTED), 3))
    for head, sets in enumerate(PLANTED):
        for number, labels in enumerate(sets):
            result[labels, head, number] = 1 + head
    return result


def kernel(noise=()):
    """Reads every feature out at the labels of its set, and at further `(head, set, label)`."""
    result = np.zeros((len(PLANTED), 3, NUM_LABELS))
    for head, sets in enumerate(PLANTED):
        for number, labels in enumerate(sets):
            result[head, number, labels] = 1
    for place in noise:
        result[place] = 0.5
    return result.reshape(-1, NUM_LABELS)


def measure(kernel, pooling):
    inner = len(kernel)
    pool = 0.1 * np.random.default_rng(0).normal(size=(inner, 1))
    readouts = BlockReadouts({0: (pool, np.ones(1), kernel)})
    return single_head_performance(LabelHeads(features()), readouts, DATA, pooling, verbose=0)[0]


@pytest.mark.parametrize("pooling", ["recomputed", "frozen"])
def test_clusters_are_the_planted_ones(pooling):
    result = measure(kernel(), pooling)
    assert result.clusters == PLANTED
    assert result.dead.tolist() == [False, False, False, True]
    assert result.noise == 0 and result.snr > 1
    assert result.coverage.tolist() == [2, 1, 1, 1, 1, 1, 1, 1]
    assert "dead heads          [3]" in result.summary()


def test_planted_noise_is_counted():
    """Set {3, 5, 7} of head 1 also drives unit 2: three ones; {4} of head 2 unit 6: one."""
    result = measure(kernel(noise=[(1, 0, 2), (2, 1, 6)]), "recomputed")
    assert result.clusters == PLANTED
    assert result.statistics.noise.tolist() == [0, 3, 1, 0]
    assert result.statistics.cluster_noise.tolist() == [0, 0, 1, 0]


def test_fitted_readouts_find_single_labels():
    """Two labels for each head; the readout is trained."""
    planted = np.zeros((NUM_LABELS, 4, 2))
    for label in range(NUM_LABELS):
        planted[label, label // 2, label % 2] = 1
    model = LabelHeads(planted)
    readouts = fit_readout(
        model, DATA, num_labels=NUM_LABELS, epochs=10, learning_rate=0.1, batch_size=40, verbose=0
    )
    result = single_head_performance(model, readouts, DATA, verbose=0)[0]
    assert result.clusters == [[[0], [1]], [[2], [3]], [[4], [5]], [[6], [7]]]
    assert result.noise == 0 and result.readout_accuracy == 1
