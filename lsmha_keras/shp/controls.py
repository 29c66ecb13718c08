"""Controls: results of heads without structure, to compare the measured ones with."""

import random

import numpy as np

from lsmha_keras.data.labelled import ImageBatches, class_labels
from lsmha_keras.shp.performance import HeadFields
from lsmha_keras.shp.shp_result import SHPResult
from lsmha_keras.shp.statistics import block_statistics

# 0.2, 0.25, ..., 0.6
THRESHOLDS = tuple(round(0.2 + 0.05 * i, 2) for i in range(9))


def gaussian_null(heads, labels, threshold=0.3, seed=0, block=0):
    """Draws matrices of independent Gaussian entries, as many and as large as those of a block.

    Even these show clusters: the evidence for structure is less noise at an equal number of them.

    Args:
        heads: int, number of heads.
        labels: int, number of labels.
        threshold: float. Defaults to `0.3`.
        seed: int.
        block: int, block index of the result.

    Returns:
        An `SHPResult`.

    Example:
        >>> gaussian_null(heads=20, labels=100).statistics.num_clusters.mean()
        np.float64(12.35)
    """
    matrices = np.random.default_rng(seed).normal(size=(heads, labels, labels))
    return SHPResult(block, matrices, np.ones(labels), threshold=threshold)


def permuted_labels(model, readouts, dataset, pooling="recomputed", seed=0, **options):
    """Measures single-head performance with the labels permuted among the images.

    The readouts stay unchanged. The result shows what heads answer regardless of the image.

    Args:
        model: see `single_head_performance`.
        readouts: `BlockReadouts`.
        dataset: labelled images of any kind that can be read twice.
        pooling: `"recomputed"` or `"frozen"`.
        seed: int, of the permutation.
        **options: further arguments of `HeadFields.measure`: `threshold`, `batch_size`, `verbose`,
            `split`, `data_dir`, `max_images`.

    Returns:
        A dict from block to `SHPResult`.

    Raises:
        ValueError: as `single_head_performance`.

    Example:

    ```python
    control = permuted_labels(model, readouts, "cifar100")
    control[1].snr, results[1].snr
    ```
    """
    names = ("split", "data_dir", "max_images")
    batches = ImageBatches(dataset, 256, model, **{k: options[k] for k in names if k in options})
    left = np.zeros(readouts.num_labels, "int64")
    for _, labels in batches.epoch():
        labels = class_labels(labels, readouts.num_labels, left.sum())
        left += np.bincount(labels, minlength=len(left))
    rng = np.random.default_rng(seed)

    def draw(labels):
        # Without replacement over all batches, so that the labels are permuted, not resampled.
        drawn = rng.multivariate_hypergeometric(left, len(labels))
        left[:] -= drawn
        return rng.permutation(np.repeat(np.arange(len(left)), drawn))

    fields = HeadFields(model, readouts.blocks, (pooling,))
    return fields.measure(readouts, dataset, relabel=draw, **options)[pooling]


def untrained_copy(model, seed=0):
    """Builds a model of the same architecture with new random weights.

    Fit readouts on it and measure it like the trained one: readouts also learn from random
    features.

    Args:
        model: a Keras model that can be rebuilt from its config.
        seed: int, of the weights.

    Returns:
        A model of the same class.

    Example:

    ```python
    untrained = untrained_copy(model)
    readouts = lsmha_keras.fit_readout(untrained, "cifar100")
    control = lsmha_keras.single_head_performance(untrained, readouts, "cifar100")
    ```
    """
    # An initializer without a seed draws one from Python's global random state.
    state = random.getstate()
    random.seed(seed)
    try:
        return type(model).from_config(model.get_config())
    finally:
        random.setstate(state)


def threshold_sweep(result, thresholds=THRESHOLDS):
    """Measures clusters and noise at several thresholds.

    Args:
        result: `SHPResult`.
        thresholds: floats. Defaults to 0.2, 0.25, ... 0.6.

    Returns:
        A dict from threshold to `BlockStatistics`.

    Example:

    ```python
    {threshold: found.snr for threshold, found in threshold_sweep(results[1]).items()}
    ```
    """
    return {float(t): block_statistics(result.matrices, t) for t in thresholds}
