"""Texts and series by name: csv files, folders of text files, archives."""

import csv

import numpy as np
import pytest

from lsmha_keras.data.labelled import labelled_batches
from lsmha_keras.data.open_dataset import can_open_offline, open_dataset
from lsmha_keras.data.pipelines import epoch_batches, load_dataset
from lsmha_keras.data.sequences import SequenceDataset

ROWS = [("NUM", "NUM:dist", "How far is it ?"), ("HUM", "HUM:ind", "Who, exactly, is Ada ?")]


def write_csv(path, columns, rows):
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows([columns, *rows])
    return path


@pytest.fixture
def trec(tmp_path):
    columns = ("coarse", "fine", "text")
    write_csv(tmp_path / "text" / "trec" / "train.csv", columns, ROWS * 5)
    write_csv(tmp_path / "text" / "trec" / "test.csv", columns, [("LOC", "LOC:city", "Où ?")])
    return tmp_path


def test_known_names_open_by_their_columns(trec):
    assert can_open_offline("trec_fine", trec)
    coarse, fine = (open_dataset(name, "train", trec) for name in ("trec", "trec_fine"))
    # The classes of all splits, so that they agree.
    assert (
        coarse.class_names
        == ["HUM", "LOC", "NUM"]
        == open_dataset("trec", "test", trec).class_names
    )
    assert fine.class_names == ["HUM:ind", "LOC:city", "NUM:dist"]
    assert coarse.labels.tolist() == [2, 0] * 5 and len(fine) == 10
    assert coarse.load([1, 0]).tolist() == ["Who, exactly, is Ada ?", "How far is it ?"]
    assert open_dataset("trec", "test", trec).load([0]).tolist() == ["Où ?"]


def test_ranges_and_sums_of_splits(trec):
    part = open_dataset("trec", "train[80%:]+test", trec)
    assert part.labels.tolist() == [2, 0, 1]
    assert part.load([2, 0]).tolist() == ["Où ?", "How far is it ?"]


def test_sst2_has_names_for_its_numbers(tmp_path):
    write_csv(tmp_path / "sst2" / "train.csv", ("label", "text"), [("1", "charming"), ("0", "bad")])
    dataset = open_dataset("sst2", "train", tmp_path)
    assert dataset.class_names == ["negative", "positive"] and dataset.labels.tolist() == [1, 0]
    write_csv(tmp_path / "sst2" / "train.csv", ("label", "text"), [("2", "charming")])
    with pytest.raises(ValueError, match="'2' in line 2"):
        open_dataset("sst2", "train", tmp_path)


def test_a_csv_file_and_a_folder_of_them(tmp_path):
    rows = [("10", "b", "x"), ("9", "a", "y")]
    file = write_csv(tmp_path / "mine.csv", ("label", "text", "note"), rows)
    dataset = open_dataset(file, "train")
    assert dataset.class_names == ["9", "10"] and dataset.load([0]).tolist() == ["b"]
    write_csv(tmp_path / "folder" / "dev.csv", ("label", "text"), [("no", "a"), ("yes", "b")])
    assert open_dataset(tmp_path / "folder", "dev").class_names == ["no", "yes"]
    with pytest.raises(ValueError, match="splits dev.*'train'"):
        open_dataset(tmp_path / "folder", "train")


@pytest.mark.parametrize(
    "columns, rows, message",
    [
        (("sentence", "label"), [("a", "0")], "no 'text' among sentence, label"),
        (("a", "b"), [], "no 'label' and 'text' among a, b"),
        (("label", "text"), [("0", " ")], "text ' ' in line 2"),
        (("label", "text"), [("0", "a"), ("1",)], "text None in line 3"),
        (("label", "text"), [], "no images"),
    ],
)
def test_bad_csv_files_are_named(tmp_path, columns, rows, message):
    with pytest.raises(ValueError, match=message):
        open_dataset(write_csv(tmp_path / "bad.csv", columns, rows), "train")


def test_folders_of_text_files(tmp_path):
    for split, label, text in (
        ("train", "neg", "bad"),
        ("train", "pos", "good"),
        ("test", "pos", "ok"),
    ):
        folder = tmp_path / split / label
        folder.mkdir(parents=True)
        (folder / "1.txt").write_text(text, encoding="utf-8")
    train, test = (open_dataset(tmp_path, split) for split in ("train", "test"))
    assert train.class_names == test.class_names == ["neg", "pos"]
    assert train.labels.tolist() == [0, 1] and test.load([0]).tolist() == ["ok"]
    classes = open_dataset(tmp_path / "train", "train")
    assert classes.load([0, 1]).tolist() == ["bad", "good"]
    (tmp_path / "test" / "pos" / "1.txt").write_text(" ")
    with pytest.raises(ValueError, match="empty"):
        open_dataset(tmp_path, "test")


def test_hidden_files_and_byte_order_marks_are_no_data(tmp_path):
    for name in ("neg/1.txt", "neg/._1.txt", ".ipynb_checkpoints/1.txt", "__MACOSX/neg/1.txt"):
        file = tmp_path / "texts" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text("bad", encoding="utf-8-sig")
    dataset = open_dataset(tmp_path / "texts", "train")
    assert dataset.class_names == ["neg"] and dataset.load([0]).tolist() == ["bad"]
    file = write_csv(tmp_path / "parts" / "train.csv", ("label", "text"), [("no", "a")])
    file.write_text(file.read_text(), encoding="utf-8-sig")
    (tmp_path / "parts" / "._train.csv").write_bytes(b"\x00")
    assert open_dataset(tmp_path / "parts", "train").class_names == ["no"]


def test_series_of_an_archive(tmp_path):
    series = np.random.default_rng(0).normal(size=(4, 6, 3))
    path = tmp_path / "series.npz"
    arrays = {"series_train": series, "y_train": [0, 1, 2, 0]}
    np.savez(path, **arrays, series_test=series[:1], y_test=[1])
    train, test = open_dataset(path, "train"), open_dataset(path, "test")
    assert train.image_shape == (6, 3) and train.dtype == "float32" and not train.is_text
    np.testing.assert_allclose(train.load([2]), series[2:3], atol=1e-6)
    assert train.class_names == test.class_names == ["0", "1", "2"]
    series[1, 0, 0] = np.nan
    np.savez(path, **arrays)
    with pytest.raises(ValueError, match="finite.*1"):
        open_dataset(path, "train")
    np.savez(path, series=series[0], y=[0] * 6)
    with pytest.raises(ValueError, match=r"\(series, time, features\)"):
        open_dataset(path, "train")


STEPS = [("a", "up", 0, 1), ("a", "up", 2, 3), ("b", "down", 4, 5), ("b", "down", 6, 7.5)]


def test_series_of_a_csv_file(tmp_path):
    columns = ("series", "label", "x", "y")
    file = write_csv(tmp_path / "mine.csv", columns, STEPS)
    dataset = open_dataset(file, "train")
    assert dataset.image_shape == (2, 2) and not dataset.is_text
    assert dataset.class_names == ["down", "up"] and dataset.labels.tolist() == [1, 0]
    assert dataset.load([1]).tolist() == [[[4, 5], [6, 7.5]]]
    write_csv(tmp_path / "parts" / "train.csv", columns, STEPS)
    write_csv(tmp_path / "parts" / "test.csv", columns, [("c", "flat", 1, 1)] * 2)
    test = open_dataset(tmp_path / "parts", "test")
    assert test.class_names == ["down", "flat", "up"] and test.labels.tolist() == [1]


@pytest.mark.parametrize(
    "columns, rows, message",
    [
        (("series", "x"), [("a", 1)], "no 'label' among series, x"),
        (("series", "label"), [("a", 1)], "no column of a feature among series, label"),
        (("series", "label", "x"), [("a", "up", "1"), ("a", "up", "high")], "'high'} in line 3"),
        (
            ("series", "label", "x"),
            [("a", "up", 1), ("a", "down", 2)],
            r"\['down', 'up'\] from line 2",
        ),
        (
            ("series", "label", "x"),
            [("a", 0, 1), ("b", 0, 2), ("a", 0, 3)],
            "line 4 on, and before",
        ),
        (
            ("series", "label", "x"),
            [("a", 0, 1), ("b", 0, 2), ("b", 0, 2)],
            "1 and, from line 3 on, 2",
        ),
        (("series", "label", "x"), [("a", 0, "nan")], "finite"),
        (("series", "label", "x"), [], "no line"),
    ],
)
def test_bad_csv_files_of_series_are_named(tmp_path, columns, rows, message):
    with pytest.raises(ValueError, match=message):
        open_dataset(write_csv(tmp_path / "bad.csv", columns, rows), "train")


def test_the_class_of_pulses_is_known_from_their_places():
    for split, count in (("train", 2000), ("test", 500)):
        dataset = open_dataset("pulses", split)
        assert len(dataset) == count and dataset.image_shape == (32, 2)
        first, second = dataset.load(range(count)).argmax(axis=1).T
        answers = 2 * (second < first) + (abs(first - second) > 8)
        np.testing.assert_array_equal(dataset.labels, answers)
        assert np.bincount(dataset.labels).min() > 0.15 * count
    assert can_open_offline("pulses")
    with pytest.raises(ValueError, match="splits train, test"):
        open_dataset("pulses", "valid")


def test_digits_are_series_too():
    pytest.importorskip("sklearn")
    images, series = (open_dataset(name, "test") for name in ("digits", "digits_series"))
    assert series.image_shape == (8, 8) and len(series) == len(images) == 360
    np.testing.assert_array_equal(series.labels, images.labels)
    values = series.load(np.arange(360))
    assert values.min() == 0 and values.max() == 1
    # The same digits: where the image of a pixel's middle is bright, so is the series.
    small = images.load(np.arange(360))[:, 2::4, 2::4, 0] / 255
    assert np.corrcoef(small.ravel(), values.ravel())[0, 1] > 0.95


@pytest.mark.parametrize("name", ["trec", "digits_series"])
def test_pipelines_carry_them(trec, name):
    if name == "digits_series":
        pytest.importorskip("sklearn")
    source = open_dataset(name, "train[:10]", trec)
    first, again = (
        [_rows(batch) for batch in epoch_batches(source, 4, one_hot=True, epochs=2)[0]]
        for _ in range(2)
    )
    assert first == again and len(first) == 6 and sorted(first[0] + first[1] + first[2])
    rows = [row for batch in first[:3] for row in batch]
    assert sorted(rows) == sorted(
        _rows((source.load(range(10)), np.eye(len(source.class_names))[source.labels]))
    )
    (values, labels), *_ = labelled_batches(source, 4)
    assert len(values) == 4 and labels.tolist() == source.labels[:4].tolist()
    (values, labels), *_ = load_dataset(name, "train[:10]", trec, batch_size=4)
    assert len(values) == 4 and np.asarray(labels).tolist() == source.labels[:4].tolist()


def _rows(batch):
    """The examples of a batch in a form that can be compared, texts as str."""
    values, labels = (np.asarray(part) for part in batch)
    texts = [v.decode() if isinstance(v, bytes) else v for v in values.tolist()]
    return [(str(value), str(label)) for value, label in zip(texts, labels.tolist(), strict=True)]


def test_one_label_for_each_sequence():
    with pytest.raises(ValueError, match="2 sequences, 1 labels"):
        SequenceDataset(["a", "b"], [0], ["x"])
