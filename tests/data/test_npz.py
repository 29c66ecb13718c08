"""Datasets split over archives of a limited size."""

import numpy as np
import pytest

from lsmha_keras.data.open_dataset import open_dataset
from lsmha_keras.data.sources.npz import write_npz_parts


@pytest.fixture
def folder(tmp_path):
    rng = np.random.default_rng(0)
    arrays = {}
    for part, count in (("train", 90), ("test", 20)):
        arrays[f"x_{part}"] = rng.integers(0, 256, (count, 32, 32, 3), dtype="uint8")
        arrays[f"y_{part}"] = np.arange(count) % 3
    names = np.array(["ant", "bee", "cat"])
    np.savez(tmp_path / "whole.npz", class_names=names, **arrays)
    (tmp_path / "cifar100").mkdir()
    for part in ("train", "test"):
        whole = open_dataset(tmp_path / "whole.npz", part)
        write_npz_parts(whole, tmp_path / "cifar100", part, limit=200_000)
    return tmp_path


def test_parts_are_the_whole_and_small(folder):
    names = sorted(path.name for path in (folder / "cifar100").iterdir())
    assert names == ["test-1-of-1.npz"] + [f"train-{n}-of-3.npz" for n in (1, 2, 3)]
    assert max(path.stat().st_size for path in (folder / "cifar100").iterdir()) <= 200_000
    for part in ("train", "test", "train[10:50]"):
        whole = open_dataset(folder / "whole.npz", part)
        parts = open_dataset("cifar100", part, data_dir=folder)  # in the place of the original
        assert parts.class_names == ["ant", "bee", "cat"]
        assert np.array_equal(parts.labels, whole.labels)
        rows = np.arange(len(whole))
        assert np.array_equal(parts.load(rows), whole.load(rows))


def test_a_missing_part_is_named(folder):
    (folder / "cifar100" / "train-2-of-3.npz").unlink()
    with pytest.raises(ValueError, match=r"lacks train-2-of-3\.npz of the 3 parts"):
        open_dataset("cifar100", data_dir=folder)
    with pytest.raises(ValueError, match="has the splits test, train. Received: split='tost'"):
        open_dataset("cifar100", "tost", data_dir=folder)


def test_a_damaged_part_is_named(folder):
    path = folder / "cifar100" / "train-2-of-3.npz"
    path.write_bytes(path.read_bytes()[:1000])
    with pytest.raises(ValueError, match=r"train-2-of-3\.npz is not a valid \.npz file"):
        open_dataset("cifar100", data_dir=folder)
