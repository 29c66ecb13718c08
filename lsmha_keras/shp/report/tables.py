"""Single-head performance as tables: lists of rows, which are dicts of plain numbers."""

import numpy as np


def block_rows(variants):
    """Tabulates the statistics of blocks.

    Args:
        variants: dict from a name, such as `"trained"` or a control's, to `{block: SHPResult}`.

    Returns:
        A list of dicts, one per variant and block. Infinite ratios stay infinite.

    Example:

    ```python
    rows = block_rows({"trained": results, "Gaussian null": null})
    ```
    """
    return [_block_row(*entry) for entry in _entries(variants)]


def head_rows(variants, scores=None):
    """Tabulates the statistics of heads.

    Args:
        variants: dict from a name to `{block: SHPResult}`.
        scores: `{block: {name: (heads,) array}}`, further scores of the first variant's heads.

    Returns:
        A list of dicts, one per variant, block and head.

    Example:

    ```python
    rows = head_rows({"trained": results}, head_scores(model, dataset))
    ```
    """
    first = next(iter(variants))
    rows = []
    for name, block, result in _entries(variants):
        added = (scores or {}).get(block, {}) if name == first else {}
        rows += [_head_row(name, result, head, added) for head in range(len(result.matrices))]
    return rows


def label_rows(variants):
    """Tabulates how many heads cover each label.

    Args:
        variants: dict from a name to `{block: SHPResult}`.

    Returns:
        A list of dicts, one per variant, block and label.

    Example:

    ```python
    rows = label_rows({"trained": results})
    ```
    """
    return [
        {
            "variant": name,
            "block": block,
            "label": label,
            "name": label_names(result)[label],
            "images": int(result.label_counts[label]),
            "heads": int(heads),
        }
        for name, block, result in _entries(variants)
        for label, heads in enumerate(result.coverage)
    ]


def sweep_rows(variants, thresholds):
    """Tabulates the statistics of blocks at several thresholds.

    Args:
        variants: dict from a name to `{block: SHPResult}`.
        thresholds: list of floats.

    Returns:
        A list of dicts, one per threshold, variant and block.

    Example:

    ```python
    rows = sweep_rows({"trained": results}, [0.2, 0.3, 0.4])
    ```
    """
    return [
        _block_row(name, block, result.at(threshold))
        for threshold in thresholds
        for name, block, result in _entries(variants)
    ]


def labels_covered(result):
    """Counts for each head the labels on its clusters.

    Args:
        result: `SHPResult`.

    Returns:
        `(heads,)` int array.
    """
    return np.array([sum(map(len, clusters)) for clusters in result.clusters])


def label_names(result):
    """Returns the names of the labels, or their numbers as str."""
    return result.label_names or [str(label) for label in range(len(result.label_counts))]


def _entries(variants):
    for name, results in variants.items():
        for block in sorted(results):
            yield name, block, results[block]


def _block_row(name, block, result):
    found = result.statistics
    coverage = found.coverage[result.label_counts > 0]
    return {
        "variant": name,
        "block": block,
        "pooling": result.pooling,
        "threshold": float(result.threshold),
        "heads": len(result.matrices),
        "dead_heads": int(result.dead.sum()),
        "labels": len(coverage),
        "images": int(result.label_counts.sum()),
        "readout_accuracy": result.readout_accuracy,
        "clusters_per_head": float(found.num_clusters.mean()),
        "labels_per_cluster": found.mean_cluster_size,
        "noise_per_head": result.noise,
        "cluster_noise_per_head": result.cluster_noise,
        "heads_per_label": float(coverage.mean()),
        "heads_per_label_min": int(coverage.min()),
        "heads_per_label_max": int(coverage.max()),
        "signal": found.signal,
        "internal_noise": found.internal_noise,
        "external_noise": found.external_noise,
        "snr": found.snr,
        "field_snr": found.field_snr,
    }


def _head_row(name, result, head, scores):
    found = result.statistics
    covered = int(labels_covered(result)[head])
    clusters = int(found.num_clusters[head])
    return {
        "variant": name,
        "block": result.block,
        "head": head,
        "dead": bool(result.dead[head]),
        "clusters": clusters,
        "labels_covered": covered,
        "labels_per_cluster": covered / clusters if clusters else 0.0,
        "noise": int(found.noise[head]),
        "cluster_noise": int(found.cluster_noise[head]),
        **{score: float(values[head]) for score, values in scores.items()},
    }
