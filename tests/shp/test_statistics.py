import numpy as np
import pytest

from lsmha_keras.shp.statistics import (
    block_statistics,
    count_cluster_noise,
    count_coverage,
    count_noise,
    find_clusters,
    normalize_matrices,
)

pytestmark = pytest.mark.backend_free


def matrix(size, entries):
    result = np.zeros((size, size), "float32")
    for place, value in entries.items():
        result[place] = value
    return result


SIX = {
    (0, 0): 1,
    (1, 1): 0.8,
    (0, 1): 0.5,
    (1, 0): 0.4,
    (3, 3): 0.9,
    (2, 0): 0.35,
    (4, 5): 0.6,
    (5, 5): 0.2,
    (0, 3): 0.31,
    (2, 2): 0.3,
}
CHAIN = {(0, 0): 1, (1, 1): 1, (2, 2): 1, (0, 1): 1, (1, 0): 1, (1, 2): 1, (2, 1): 1}
STAR = [(0, 0), (1, 1), (2, 2), (0, 1), (1, 0), (0, 2), (2, 0)]
STRIPE = {(i, 2): value for i, value in enumerate((0.9, 0.8, 1, 0.7, 0.6))}

# (matrix, clusters, ones, noise, cluster noise), worked by hand at threshold 0.3.
WORKED = {
    "six": (matrix(6, SIX), [[0, 1], [3]], 8, 3, 2),
    "chain": (matrix(3, CHAIN), [[0, 1], [2]], 7, 2, 2),
    "stripe": (matrix(5, STRIPE), [[2]], 5, 4, 4),
    "identity": (np.eye(4, dtype="float32"), [[0], [1], [2], [3]], 4, 0, 0),
    "all ones": (np.ones((3, 3), "float32"), [[0, 1, 2]], 9, 0, 0),
    "nothing": (np.zeros((3, 3), "float32"), [], 0, 0, 0),
    "no diagonal": (1 - np.eye(3, dtype="float32"), [], 6, 6, 0),
    # Both 1 and 2 fit 0, but not each other: the first in the order of labels wins.
    "order": (matrix(3, dict.fromkeys(STAR, 1)), [[0, 1], [2]], 7, 2, 2),
}


@pytest.mark.parametrize("name", WORKED)
def test_worked_examples(name):
    values, clusters, ones, noise, cluster_noise = WORKED[name]
    boolean = values > 0.3
    assert boolean.sum() == ones
    assert find_clusters(boolean) == clusters
    assert count_noise(boolean, clusters) == noise
    assert count_cluster_noise(boolean, clusters) == cluster_noise
    found = block_statistics(values)
    assert found.clusters == [clusters]
    assert (found.noise.tolist(), found.cluster_noise.tolist()) == ([noise], [cluster_noise])


def test_clusters_equal_the_definition_on_random_matrices():
    """Squares are checked entry by entry, and no later label would have fitted an earlier one."""
    rng = np.random.default_rng(0)
    for density in (0.2, 0.5, 0.8, 0.95):
        boolean = rng.uniform(size=(20, 20)) < density
        clusters = find_clusters(boolean)
        covered = [label for cluster in clusters for label in cluster]
        assert sorted(covered) == np.flatnonzero(boolean.diagonal()).tolist()
        for number, cluster in enumerate(clusters):
            assert boolean[np.ix_(cluster, cluster)].all() and cluster == sorted(cluster)
            for label in (later for c in clusters[number + 1 :] for later in c):
                smaller = [other for other in cluster if other < label] + [label]
                assert not boolean[np.ix_(smaller, smaller)].all()


def test_statistics_worked_by_hand():
    """Two heads, 4 labels: clusters {0,1}, {2} with noise 1, and {1} with noise 2."""
    first = matrix(4, {(0, 0): 1, (1, 1): 1, (0, 1): 1, (1, 0): 1, (2, 2): 0.5, (3, 2): 0.5})
    second = matrix(4, {(1, 1): 1, (0, 1): 0.6, (2, 3): 0.4, (3, 0): -0.8})
    found = block_statistics([first, second])
    assert found.num_clusters.tolist() == [2, 1]
    assert found.coverage.tolist() == [1, 2, 1, 0]
    assert found.mean_cluster_size == pytest.approx(4 / 3)
    assert found.signal == pytest.approx(4 / 4)  # U N_c C_s / K = 2 * 1.5 * (4/3) / 4
    assert found.internal_noise == pytest.approx(4 / 3 / 12)  # ... (C_s - 1) / (K (K - 1))
    assert found.external_noise == pytest.approx(3 / 12)
    assert found.snr == pytest.approx(1 / (4 / 36 + 3 / 12))
    # Diagonal at covered labels: 1, 1, 0.5, 1; off the diagonal 24 entries.
    assert found.field_snr == pytest.approx((3.5 / 4) / ((1 + 1 + 0.5 + 0.6 + 0.4 + 0.8) / 24))


def test_snr_with_unit_clusters():
    """SNR = N_c (K - 1) / n."""
    rng = np.random.default_rng(0)
    boolean = rng.uniform(size=(30, 30)) < 0.1
    boolean &= ~(boolean & boolean.T & ~np.eye(30, dtype=bool))
    found = block_statistics(boolean.astype("float32"))
    assert found.mean_cluster_size == 1
    assert found.snr == pytest.approx(found.num_clusters[0] * 29 / found.noise[0])


@pytest.mark.parametrize("threshold, clusters", [(0.3, []), (np.float64(0.3), []), (0.29, [[1]])])
def test_threshold_is_strict(threshold, clusters):
    assert block_statistics(matrix(3, {(1, 1): 0.3}), threshold).clusters == [clusters]


def test_perfect_and_empty_blocks():
    assert block_statistics(np.eye(4)).snr == np.inf
    empty = block_statistics(np.zeros((2, 4, 4)))
    assert (empty.snr, empty.signal, empty.mean_cluster_size, empty.field_snr) == (0, 0, 0, 0)


def test_normalisation_by_the_one_global_maximum():
    means = np.array([[[2.0, -4.0], [1.0, 0.5]], [[-1.0, -2.0], [-3.0, 0.0]]])
    normalised, dead = normalize_matrices(means)
    assert normalised.dtype == np.float32 and dead.tolist() == [False, True]
    np.testing.assert_array_equal(normalised[0], means[0] / 2)
    assert block_statistics(normalised).clusters[1] == []


def test_labels_without_images_have_no_part():
    """With the last label's row missing: K = 3 rows of 4 entries each."""
    means = matrix(4, {(0, 0): 2, (1, 1): 2, (0, 3): 2, (3, 3): 9})
    means[3] = np.nan
    normalised, dead = normalize_matrices(means[None])
    assert np.isnan(normalised[0, 3]).all() and normalised[0, 0, 0] == 1 and not dead[0]
    found = block_statistics(normalised)
    assert found.clusters == [[[0], [1]]] and found.noise.tolist() == [1]
    assert found.signal == pytest.approx(2 / 3)
    assert found.snr == pytest.approx((2 / 3) / (1 / 9))
    assert normalize_matrices(np.full((1, 3, 3), np.nan))[1].tolist() == [True]


def test_coverage_counts_heads():
    assert count_coverage([[[0, 2]], [[2], [3]], []], 5).tolist() == [1, 0, 2, 1, 0]


@pytest.mark.parametrize(
    "call, message",
    [
        (lambda: find_clusters(np.eye(3)), "dtype float64"),
        (lambda: find_clusters(np.ones((2, 3), bool)), r"shape \(2, 3\)"),
        (lambda: block_statistics(np.ones((1, 1, 1))), "at least 2 labels"),
        (lambda: block_statistics(np.ones((2, 3, 4))), r"shape \(2, 3, 4\)"),
    ],
)
def test_errors(call, message):
    with pytest.raises(ValueError, match=message):
        call()
