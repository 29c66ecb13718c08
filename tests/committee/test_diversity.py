import doctest
import math

import numpy as np
import pytest

from lsmha_keras.committee import diversity
from lsmha_keras.shp.shp_result import SHPResult

pytestmark = pytest.mark.backend_free

LABELS = [0, 1, 2, 0, 1, 2, 0, 1]
ANSWERS = [
    [0, 1, 2, 0, 1, 2, 1, 2],  # 6 of 8 right
    [0, 1, 2, 0, 2, 0, 0, 2],  # 5 of 8 right; 3 answers unlike the first member's
    [1, 1, 2, 0, 2, 1, 1, 0],  # 3 of 8 right; 4 unlike the first's, 4 unlike the second's
]


def test_examples():
    assert doctest.testmod(diversity, extraglobs={"np": np}).failed == 0


def test_worked_example():
    np.testing.assert_array_equal(
        diversity.pairwise_disagreement(ANSWERS) * 8, [[0, 3, 4], [3, 0, 4], [4, 4, 0]]
    )
    # Both wrong: images 6, 7 of members 0 and 2; 7 of 0 and 1; 4, 5, 7 of 1 and 2.
    np.testing.assert_array_equal(
        diversity.pairwise_double_fault(ANSWERS, LABELS) * 8, [[2, 1, 2], [1, 3, 3], [2, 3, 5]]
    )
    assert diversity.oracle_accuracy(ANSWERS, LABELS) == 7 / 8
    assert diversity.mean_over_pairs(diversity.pairwise_disagreement(ANSWERS)) == 11 / 24
    assert diversity.mean_over_pairs(np.zeros((1, 1))) == 0


def test_coverage_of_sets_is_jaccard():
    """Counts of 0 and 1: {0, 1, 2} and {1, 2, 3} share 2 labels of 4."""
    _, overlap = diversity.coverage_overlap([[1, 1, 1, 0, 0], [0, 1, 1, 1, 0]])
    assert overlap.tolist() == [[1, 0.5], [0.5, 1]]


def test_coverage_of_counts():
    correlation, overlap = diversity.coverage_overlap([[4, 3, 2, 1], [1, 2, 3, 4], [2, 2, 2, 2]])
    assert correlation[0, 1] == pytest.approx(-1) and math.isnan(correlation[0, 2])
    assert overlap[0, 1] == pytest.approx((1 + 2 + 2 + 1) / (4 + 3 + 3 + 4))
    _, nothing = diversity.coverage_overlap([[0, 0], [0, 0]])
    assert nothing[0, 1] == 1


def test_coverage_of_other_labels_is_refused():
    with pytest.raises(ValueError, match=r"same labels. Received: \[2, 3\] labels"):
        diversity.coverage_overlap([[1, 2], [1, 2, 3]])


@pytest.fixture
def result():
    """Head 0 responds to labels 0 and 2, head 1 to 2 and, above 0.3 but not 0.5, to 1."""
    means = np.zeros((2, 3, 3))
    means[0, 0, 0], means[0, 2, 2], means[1, 2, 2], means[1, 1, 1] = 1, 0.9, 2, 0.8
    return SHPResult(1, means, [5, 5, 5])


def test_coverage_from_files(result, tmp_path):
    result.save(tmp_path / "block_1.npz")
    report = {"trained/block_0": np.ones((1, 3, 3)), "trained/block_1": result.class_means}
    report |= {"untrained trunk/block_7": np.ones((1, 3, 3)), "label_counts": [5, 5, 5]}
    np.savez(tmp_path / "shp.npz", **report)
    for name in ("block_1.npz", "shp.npz"):
        path = tmp_path / name
        assert diversity.load_coverage(path).tolist() == [1, 1, 2]
        assert diversity.load_coverage(path, block=1, threshold=0.5).tolist() == [1, 0, 2]
        with pytest.raises(ValueError, match=r"blocks \[.*1\]. Received: block=2"):
            diversity.load_coverage(path, block=2)
    assert diversity.load_coverage(tmp_path / "shp.npz", block=0).tolist() == [1, 1, 1]


def test_a_foreign_file_is_refused(tmp_path):
    np.savez(tmp_path / "other.npz", a=np.zeros(3))
    with pytest.raises(ValueError, match="not written by `SHPResult.save`"):
        diversity.load_coverage(tmp_path / "other.npz")
