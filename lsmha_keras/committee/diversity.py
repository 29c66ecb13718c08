"""Diversity of a committee: of its members' answers, and of the labels that their heads cover."""

import re

import numpy as np

from lsmha_keras.errors import InputError
from lsmha_keras.shp.shp_result import SHPResult
from lsmha_keras.shp.statistics import spearman


def pairwise_disagreement(answers):
    """Measures the fraction of images on which two members answer differently.

    Args:
        answers: `(members, images)` array of labels.

    Returns:
        `(members, members)` float array in 0 .. 1, symmetric, zero on the diagonal.

    Example:
        >>> pairwise_disagreement([[0, 1, 2, 3], [0, 1, 2, 0]]).tolist()
        [[0.0, 0.25], [0.25, 0.0]]
    """
    answers = np.asarray(answers)
    return np.stack([(answers != own).mean(axis=1) for own in answers])


def pairwise_double_fault(answers, labels):
    """Measures the fraction of images on which two members are both wrong.

    Args:
        answers: `(members, images)` array of labels.
        labels: `(images,)` array of true labels.

    Returns:
        `(members, members)` float array in 0 .. 1; the diagonal holds the members' errors.

    Example:
        >>> pairwise_double_fault([[0, 1, 2, 3], [0, 1, 1, 0]], [0, 1, 1, 2]).tolist()
        [[0.5, 0.25], [0.25, 0.25]]
    """
    wrong = (np.asarray(answers) != np.asarray(labels)).astype("float64")
    return wrong @ wrong.T / wrong.shape[1]


def oracle_accuracy(answers, labels):
    """Measures the fraction of images on which at least one member is right.

    Args:
        answers: `(members, images)` array of labels.
        labels: `(images,)` array of true labels.

    Returns:
        A float in 0 .. 1, an upper bound for any choice among the members' answers.

    Example:
        >>> oracle_accuracy([[0, 1, 2, 3], [0, 1, 1, 0]], [0, 1, 1, 2])
        0.75
    """
    return float((np.asarray(answers) == np.asarray(labels)).any(axis=0).mean())


def mean_over_pairs(matrix):
    """Averages a symmetric matrix over pairs of different members; without a pair it is 0.

    Args:
        matrix: `(members, members)` array.

    Returns:
        A float.

    Example:
        >>> mean_over_pairs(np.array([[0.0, 0.25], [0.25, 0.0]]))
        0.25
    """
    values = np.asarray(matrix)[np.triu_indices(len(matrix), k=1)]
    return float(values.mean()) if values.size else 0.0


def coverage_overlap(coverages):
    """Compares how many heads cover each label in one member and in another.

    Args:
        coverages: `(members, labels)` array of counts, such as `SHPResult.coverage`.

    Returns:
        Two `(members, members)` float arrays. Spearman's rank correlation of the counts is NaN if a
        member covers all labels with equally many heads. The overlap is the sum over labels of the
        smaller count, divided by the sum of the larger one. For counts of 0 and 1 it is the Jaccard
        index of the sets of covered labels; for two members that cover nothing it is 1.

    Raises:
        ValueError: if the members do not have the same number of labels.

    Example:
        >>> correlation, overlap = coverage_overlap([[2, 1, 0], [1, 2, 0]])
        >>> round(float(correlation[0, 1]), 6), float(overlap[0, 1])
        (0.5, 0.5)
    """
    if len({len(coverage) for coverage in coverages}) > 1:
        raise InputError(
            "The coverages must be of the same labels. "
            f"Received: {[len(coverage) for coverage in coverages]} labels"
        )
    coverages = np.asarray(coverages)
    correlation = np.array([[spearman(a, b) for b in coverages] for a in coverages])
    smaller = np.minimum(coverages[:, None], coverages).sum(axis=2)
    larger = np.maximum(coverages[:, None], coverages).sum(axis=2)
    return correlation, np.where(larger > 0, smaller / np.maximum(larger, 1), 1.0)


def load_coverage(path, block=None, threshold=0.3):
    """Reads the coverage of labels from a file of single-head performance.

    Args:
        path: `shp.npz` of a report by `lsmha shp`, or a file that `SHPResult.save` wrote.
        block: int, index of the block, or `None` for the last one in the file.
        threshold: float; see `SHPResult`. Defaults to `0.3`.

    Returns:
        `(labels,)` ints, the number of heads that have each label on a cluster.

    Raises:
        ValueError: if the file is neither of these, or lacks the block.

    Example:

    ```python
    coverage = load_coverage("runs/shp/shp.npz", block=1)
    ```
    """
    with np.load(path) as file:
        found = {
            int(match[1]): name
            for name in file
            if (match := re.fullmatch(r"trained/block_(\d+)", name))
        }
        if found:
            chosen = _choose(found, block, path)
            return SHPResult(
                chosen, file[found[chosen]], file["label_counts"], threshold=threshold
            ).coverage
    result = SHPResult.load(path)
    _choose([result.block], block, path)
    return result.at(threshold).coverage


def _choose(blocks, block, path):
    if block is not None and block not in blocks:
        raise InputError(
            f"The file holds the blocks {sorted(blocks)}. Received: block={block}, {path}"
        )
    return max(blocks) if block is None else block
