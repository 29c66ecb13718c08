import numpy as np
import pytest

from lsmha_keras.shp.readouts import BlockReadouts
from lsmha_keras.shp.shp_result import SHPResult
from tests.shp.models import random_readouts, small_classifier


def result(**changes):
    means = np.random.default_rng(0).normal(size=(3, 4, 4))
    means[:, 3] = np.nan
    fields = {
        "block": 2,
        "class_means": means,
        "label_counts": [5, 6, 7, 0],
        "threshold": 0.25,
        "pooling": "frozen",
        "label_names": ["ant", "bee", "cat", "dog"],
        "readout_accuracy": 0.5,
        **changes,
    }
    return SHPResult(**fields)


@pytest.mark.parametrize("changes", [{}, {"label_names": None, "readout_accuracy": None}])
def test_saved_result_comes_back(tmp_path, changes):
    saved = result(**changes)
    saved.save(tmp_path / "any name")
    loaded = SHPResult.load(tmp_path / "any name")
    for name in ("block", "threshold", "pooling", "label_names", "readout_accuracy", "clusters"):
        assert getattr(loaded, name) == getattr(saved, name), name
        assert type(getattr(loaded, name)) is type(getattr(saved, name)), name
    for name in ("class_means", "label_counts", "matrices", "boolean", "coverage"):
        np.testing.assert_array_equal(getattr(loaded, name), getattr(saved, name), name)


def test_figures_follow_from_the_statistics():
    found = result()
    assert found.matrices.dtype == np.float32
    assert np.nanmax(found.matrices, axis=(1, 2)).tolist() == [1, 1, 1]
    assert found.noise == found.statistics.noise.sum() / 3
    assert found.cluster_noise == found.statistics.cluster_noise.sum() / 3
    np.testing.assert_array_equal(found.boolean, found.matrices > 0.25)
    assert found.at(2.0).clusters == [[], [], []] and found.threshold == 0.25


def test_summary_names_what_is_left_out():
    lines = result().summary()
    for part in ("Block 2: 3 heads, 3 labels, 18 images", "50.00%", "no images: dog"):
        assert part in lines


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"class_means": np.zeros((3, 4, 5))}, r"\(3, 4, 5\)"),
        ({"label_names": ["ant"]}, "Received: 1 names"),
        ({"pooling": "none"}, "pooling='none'"),
    ],
)
def test_bad_results(changes, message):
    with pytest.raises(ValueError, match=message):
        result(**changes)


def test_saved_readouts_come_back(tmp_path):
    weights = random_readouts([3, 1]).weights
    saved = BlockReadouts(weights, {1: 0.5, 3: 0.75}, ["a", "b", "c", "d", "e"])
    saved.save(tmp_path / "readouts")
    loaded = BlockReadouts.load(tmp_path / "readouts")
    assert loaded.blocks == [1, 3] and loaded.accuracy == {1: 0.5, 3: 0.75}
    assert loaded.num_labels == 5 and loaded.label_names == saved.label_names
    for block in (1, 3):
        for array, other in zip(loaded.weights[block], weights[block], strict=True):
            np.testing.assert_array_equal(array, other)


def test_readouts_travel_with_a_preset(tmp_path):
    """The preset's checksums cover them, and loading the model still works."""
    from lsmha_keras import CCTImageClassifier

    small_classifier().save_to_preset(tmp_path)
    random_readouts([1]).save(tmp_path)
    assert "shp_readouts.npz" in (tmp_path / "checksums.sha256").read_text()
    CCTImageClassifier.from_preset(str(tmp_path))
    assert BlockReadouts.load(str(tmp_path)).blocks == [1]


@pytest.mark.parametrize(
    "call, message",
    [
        (lambda path: BlockReadouts({}), "at least one block"),
        (lambda path: BlockReadouts({0: [np.zeros((4, 1)), [0], np.zeros((5, 2))]}), "block 0"),
        (lambda path: BlockReadouts.load(path / "other.npz"), "was not written by"),
        (lambda path: SHPResult.load(path / "other.npz"), "was not written by"),
        (lambda path: BlockReadouts.load(path), "no file shp_readouts.npz"),
        (lambda path: BlockReadouts.load("cct_2_3x2_h16"), "no file shp_readouts.npz"),
    ],
)
def test_bad_files(tmp_path, call, message):
    np.savez(tmp_path / "other.npz", a=np.zeros(3))
    with pytest.raises(ValueError, match=message):
        call(tmp_path)
