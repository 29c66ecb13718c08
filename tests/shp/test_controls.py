import random

import numpy as np
import pytest

from lsmha_keras.shp.controls import (
    gaussian_null,
    permuted_labels,
    threshold_sweep,
    untrained_copy,
)
from lsmha_keras.shp.performance import single_head_performance
from lsmha_keras.shp.statistics import block_statistics, normalize_matrices
from tests.checks import to_numpy
from tests.shp.models import LABELS, pictures, random_readouts, small_classifier

# Ones, clusters per head, labels per cluster, noise, cluster noise of structureless 100 x 100
# matrices at threshold 0.3: published means of 20 draws.
TABLE = {
    "gaussian": (1242, 12.3, 1.12, 1225, 170),
    "half-normal": (2403, 16.6, 1.46, 2363, 571),
    "uniform": (7002, 16.7, 4.17, 6673, 4557),
}
DRAWS = 100


def structureless(kind):
    if kind == "gaussian":
        return gaussian_null(DRAWS, 100, seed=1).matrices
    rng = np.random.default_rng(1)
    draw = rng.uniform if kind == "uniform" else rng.normal
    return normalize_matrices(np.abs(draw(size=(DRAWS, 100, 100))))[0]


@pytest.mark.parametrize("kind", TABLE)
def test_null_statistics(kind):
    """Within four standard errors of the difference to a mean of 20 draws."""
    matrices = structureless(kind)
    found = block_statistics(matrices)
    sizes = [[len(cluster) for cluster in head] for head in found.clusters]
    per_head = [
        (matrices > 0.3).sum(axis=(1, 2)),
        found.num_clusters,
        [np.mean(head) for head in sizes if head],
        found.noise,
        found.cluster_noise,
    ]
    for values, expected in zip(per_head, TABLE[kind], strict=True):
        error = np.std(values) * np.sqrt(1 / 20 + 1 / DRAWS)
        rounding = 0.05 if expected < 100 else 0.5
        assert abs(np.mean(values) - expected) < 4 * error + rounding, (np.mean(values), expected)


def test_null_is_reproducible_and_of_the_size_asked_for():
    null = gaussian_null(heads=3, labels=10, threshold=0.4, seed=5, block=2)
    assert null.matrices.shape == (3, 10, 10) and (null.block, null.threshold) == (2, 0.4)
    np.testing.assert_array_equal(null.matrices, gaussian_null(3, 10, seed=5).matrices)


def test_permuted_labels_keep_the_counts_and_lose_the_structure():
    """Rows differ only by chance: each is the mean field of random images."""
    model, (images, labels) = small_classifier(), pictures(2000)
    readouts = random_readouts([2])
    true = single_head_performance(model, readouts, (images, labels), verbose=0)[2]
    control = permuted_labels(model, readouts, (images, labels), batch_size=64, verbose=0)[2]
    assert control.label_counts.tolist() == np.bincount(labels, minlength=LABELS).tolist()
    weights = control.label_counts[:, None] / len(labels)
    overall = [(weights * result.class_means).sum(axis=1) for result in (true, control)]
    np.testing.assert_allclose(overall[0], overall[1], atol=1e-4)
    spread = [np.ptp(result.class_means, axis=1).max() for result in (true, control)]
    assert spread[1] < 0.3 * spread[0]


def test_untrained_copy_has_other_weights_and_leaves_random_states_alone():
    model = small_classifier()
    before = random.getstate()
    first, second, other = (untrained_copy(model, seed) for seed in (1, 1, 2))
    assert random.getstate() == before
    first, second, other, given = (
        to_numpy(m.backbone.blocks[1].attention.qkv.kernel) for m in (first, second, other, model)
    )
    np.testing.assert_array_equal(first, second)
    assert np.abs(first - other).max() > 1e-3 and np.abs(first - given).max() > 1e-3
    assert abs(first.std() - given.std()) < 0.2 * given.std()


def test_sweep_equals_results_at_each_threshold():
    null = gaussian_null(heads=4, labels=30)
    sweep = threshold_sweep(null)
    assert list(sweep) == [0.2, 0.25, 0.3, 0.35, 0.4, 0.45, 0.5, 0.55, 0.6]
    for threshold, found in sweep.items():
        assert found.clusters == null.at(threshold).clusters and found.snr == null.at(threshold).snr
