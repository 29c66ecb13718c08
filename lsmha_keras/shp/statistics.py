"""Clusters, noise and signal-to-noise ratio of single-head performance matrices."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np

from lsmha_keras.errors import InputError


@dataclasses.dataclass(frozen=True, eq=False)
class BlockStatistics:
    """Clusters, noise and signal-to-noise ratio of one block; see `block_statistics`.

    Args:
        clusters: for each head a list of clusters, each a list of labels.
        num_clusters: `(heads,)` ints.
        noise: `(heads,)` ints, number of ones outside the squares of the clusters.
        cluster_noise: `(heads,)` ints, those among them in the columns of clustered labels.
        coverage: `(labels,)` ints, number of heads that have the label on a cluster.
        mean_cluster_size: float, mean over all clusters of the block; 0 without clusters.
        signal: float.
        internal_noise: float, of other labels in the same cluster.
        external_noise: float, of ones outside the squares.
        snr: float, signal over both noises; 0 without signal, infinite without noise.
        field_snr: float, mean field on the diagonal at covered labels over the mean magnitude off
            the diagonal.
    """

    clusters: list
    num_clusters: np.ndarray
    noise: np.ndarray
    cluster_noise: np.ndarray
    coverage: np.ndarray
    mean_cluster_size: float
    signal: float
    internal_noise: float
    external_noise: float
    snr: float
    field_snr: float


def normalize_matrices(class_means):
    """Divides every head's matrix by its global maximum.

    A head whose maximum is not positive is dead: its matrix is returned unchanged, so that no entry
    exceeds a threshold. Rows of labels without images stay NaN and do not count.

    Args:
        class_means: `(heads, labels, labels)` array, the mean fields.

    Returns:
        The normalised matrices, float32 of the same shape, and a `(heads,)` boolean array that is
        true for dead heads.

    Example:
        >>> matrices, dead = normalize_matrices([[[2.0, -1.0], [0.5, 4.0]]])
        >>> matrices[0].tolist(), dead.tolist()
        ([[0.5, -0.25], [0.125, 1.0]], [False])
    """
    class_means = np.asarray(class_means, "float64")
    maxima = np.where(np.isnan(class_means), -np.inf, class_means).max(axis=(1, 2))
    dead = maxima <= 0
    scale = np.where(dead, 1.0, maxima)
    return (class_means / scale[:, None, None]).astype("float32"), dead


def find_clusters(boolean_matrix: Any) -> list[list[int]]:
    """Finds the disjoint all-ones squares on the diagonal of a Boolean matrix.

    Candidates are the labels whose diagonal entry is set, in ascending order. The first remaining
    one starts a cluster. Each later one joins if its entries with all labels of the cluster are
    set, in both directions. The result depends on the order of the labels.

    Args:
        boolean_matrix: `(labels, labels)` array of bool.

    Returns:
        A list of clusters, each a list of labels in ascending order.

    Raises:
        ValueError: if the array is not a square Boolean matrix.

    Example:
        >>> import numpy as np
        >>> find_clusters(np.array([[1, 1, 0], [1, 1, 1], [0, 1, 1]], bool))
        [[0, 1], [2]]
    """
    matrix = _check_boolean(boolean_matrix)
    mutual = matrix & matrix.T
    remaining = np.flatnonzero(matrix.diagonal()).tolist()
    clusters = []
    while remaining:
        cluster = [remaining[0]]
        fits = mutual[remaining[0]].copy()
        for label in remaining[1:]:
            if fits[label]:
                cluster.append(label)
                fits &= mutual[label]
        remaining = [label for label in remaining if label not in cluster]
        clusters.append(cluster)
    return clusters


def count_noise(boolean_matrix, clusters):
    """Counts the ones outside the squares of the clusters.

    Args:
        boolean_matrix: `(labels, labels)` array of bool.
        clusters: list of lists of labels.

    Returns:
        An int.

    Example:
        >>> count_noise(np.ones((3, 3), bool), [[0, 1]])
        5
    """
    ones = int(_check_boolean(boolean_matrix).sum())
    return ones - sum(len(cluster) ** 2 for cluster in clusters)


def count_cluster_noise(boolean_matrix, clusters):
    """Counts the ones outside the squares, in the columns of clustered labels only.

    Args:
        boolean_matrix: `(labels, labels)` array of bool.
        clusters: list of lists of labels.

    Returns:
        An int.

    Example:
        >>> count_cluster_noise(np.ones((3, 3), bool), [[0, 1]])
        2
    """
    columns = [label for cluster in clusters for label in cluster]
    ones = int(_check_boolean(boolean_matrix)[:, columns].sum())
    return ones - sum(len(cluster) ** 2 for cluster in clusters)


def count_coverage(clusters, num_labels):
    """Counts for each label the heads that have it on a cluster.

    Args:
        clusters: for each head a list of lists of labels.
        num_labels: int.

    Returns:
        `(num_labels,)` int array.

    Example:
        >>> count_coverage([[[0, 1]], [[1], [2]]], 4).tolist()
        [1, 2, 1, 0]
    """
    labels = [label for head in clusters for cluster in head for label in cluster]
    return np.bincount(np.asarray(labels, "int64"), minlength=num_labels)


def block_statistics(matrices, threshold=0.3):
    """Measures clusters, noise and signal of the heads of one block.

    With K labels, U heads, N_c clusters per head of mean size C_s and noise n: signal
    `S = U N_c C_s / K`, internal noise `U N_c C_s (C_s - 1) / (K (K - 1))`, external noise
    `U n / (K (K - 1))`, `SNR = S / (internal + external)`. Labels without images (rows of NaN) are
    left out: K is the number of measured rows, except in `K - 1`.

    Args:
        matrices: `(heads, labels, labels)` array of normalised matrices, or one matrix.
        threshold: float; entries strictly above it are ones. Defaults to `0.3`.

    Returns:
        A `BlockStatistics`.

    Raises:
        ValueError: if the matrices are not square, or there are fewer than two labels.

    Example:
        >>> statistics = block_statistics(np.eye(4)[None])
        >>> statistics.clusters, statistics.signal
        ([[[0], [1], [2], [3]]], 1.0)
    """
    matrices = _check_matrices(matrices)
    # A Python float is compared in the matrices' precision: float32 0.3 must not exceed 0.3.
    boolean = matrices > float(threshold)
    num_heads, num_labels, _ = matrices.shape
    clusters = [find_clusters(matrix) for matrix in boolean]
    noise = [count_noise(*pair) for pair in zip(boolean, clusters, strict=True)]
    cluster_noise = [count_cluster_noise(*pair) for pair in zip(boolean, clusters, strict=True)]
    sizes = [len(cluster) for head in clusters for cluster in head]
    mean_size = float(np.mean(sizes)) if sizes else 0.0
    num_measured = int((~np.isnan(matrices[0]).all(axis=1)).sum())
    pairs = num_measured * (num_labels - 1)
    signal = _ratio(len(sizes) * mean_size, num_measured)
    internal = _ratio(len(sizes) * mean_size * (mean_size - 1), pairs)
    external = _ratio(sum(noise), pairs)
    return BlockStatistics(
        clusters=clusters,
        num_clusters=np.array([len(head) for head in clusters]),
        noise=np.array(noise),
        cluster_noise=np.array(cluster_noise),
        coverage=count_coverage(clusters, num_labels),
        mean_cluster_size=mean_size,
        signal=signal,
        internal_noise=internal,
        external_noise=external,
        snr=_ratio(signal, internal + external),
        field_snr=_field_snr(matrices, clusters),
    )


def spearman(a, b):
    """Returns Spearman's rank correlation of two arrays, NaN if one of them is constant."""
    ranks = np.stack([_ranks(a), _ranks(b)])
    if (np.ptp(ranks, axis=1) == 0).any():
        return float("nan")
    return float(np.corrcoef(ranks)[0, 1])


def _ranks(values):
    """Returns ranks, from 1; ties get their mean rank."""
    _, inverse, counts = np.unique(values, return_inverse=True, return_counts=True)
    return (np.cumsum(counts) - (counts - 1) / 2)[inverse]


def _field_snr(matrices, clusters):
    """Divides the mean field at covered labels by the mean magnitude off the diagonal."""
    alive = [head for head, matrix in enumerate(matrices) if np.nanmax(matrix, initial=0) > 0]
    covered = [
        matrices[head, label, label]
        for head in alive
        for cluster in clusters[head]
        for label in cluster
    ]
    off_diagonal = ~np.eye(matrices.shape[1], dtype=bool)
    others = np.abs(matrices[alive][:, off_diagonal])
    others = others[~np.isnan(others)]
    if not covered or not others.size:
        return 0.0
    return _ratio(float(np.mean(covered)), float(np.mean(others)))


def _ratio(part, whole):
    """Divides; `0 / 0` is 0, and a signal without noise gives infinity."""
    if whole:
        return part / whole
    return np.inf if part else 0.0


def _check_boolean(matrix):
    matrix = np.asarray(matrix)
    if matrix.ndim != 2 or matrix.shape[0] != matrix.shape[1] or matrix.dtype != bool:
        raise InputError(
            "The matrix must be square and Boolean: compare a normalised matrix with a threshold. "
            f"Received: shape {matrix.shape}, dtype {matrix.dtype}"
        )
    return matrix


def _check_matrices(matrices):
    matrices = np.asarray(matrices)
    matrices = matrices[None] if matrices.ndim == 2 else matrices
    if matrices.ndim != 3 or matrices.shape[1] != matrices.shape[2] or matrices.shape[1] < 2:
        raise InputError(
            "The matrices must have shape (heads, labels, labels) with at least 2 labels. "
            f"Received: shape {matrices.shape}"
        )
    return matrices
