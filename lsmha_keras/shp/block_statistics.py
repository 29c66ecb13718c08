"""What the single-head performance matrices of one block amount to."""

import dataclasses

import numpy as np


@dataclasses.dataclass(frozen=True, eq=False)
class BlockStatistics:
    """Clusters, noise and signal-to-noise ratio of one block; see `clusters.block_statistics`.

    Args:
        clusters: for each head a list of clusters, each a list of labels.
        num_clusters: `(heads,)` ints.
        noise: `(heads,)` ints, ones outside the squares of the clusters.
        cluster_noise: `(heads,)` ints, those of them in the columns of clustered labels.
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
