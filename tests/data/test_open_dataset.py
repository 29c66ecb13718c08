"""Opening every kind of dataset, and the errors for bad ones."""

import io
import os
import pickle
import sys
import tarfile

import numpy as np
import pytest
from PIL import Image

import lsmha_keras as lsmha
from lsmha_keras.data.datasets import ArrayDataset
from lsmha_keras.data.open_dataset import can_open_offline

pytestmark = pytest.mark.backend_free

LAYOUT = {
    "cifar100": ("cifar-100-python", ["train"], ["test"], "meta", "fine_label"),
    "cifar10": (
        "cifar-10-batches-py",
        [f"data_batch_{n}" for n in range(1, 6)],
        ["test_batch"],
        "batches.meta",
        "label",
    ),
}


@pytest.fixture(autouse=True)
def no_data_dir(monkeypatch):
    monkeypatch.delenv("LSMHA_DATA_DIR", raising=False)


def write_cifar(root, name, per_file=6):
    """Writes a small dataset in the authors' format; returns its images and labels by part."""
    folder, train, test, meta, key = LAYOUT[name]
    classes = int(name.removeprefix("cifar"))
    rng = np.random.default_rng(0)
    path = root / folder
    path.mkdir(parents=True)
    parts = {}
    for part, files in (("train", train), ("test", test)):
        images, labels = [], []
        for file in files:
            picture = rng.integers(0, 256, (per_file, 32, 32, 3), dtype="uint8")
            label = rng.integers(0, classes, per_file)
            rows = np.stack(
                [np.concatenate([p[..., c].ravel() for c in range(3)]) for p in picture]
            )
            content = {b"data": rows, f"{key}s".encode(): label.tolist()}
            (path / file).write_bytes(pickle.dumps(content, protocol=2))
            images.append(picture)
            labels.append(label)
        parts[part] = np.concatenate(images), np.concatenate(labels)
    names = {f"{key}_names".encode(): [f"class {n}".encode() for n in range(classes)]}
    (path / meta).write_bytes(pickle.dumps(names, protocol=2))
    return path, parts


def archive_of(path, target):
    with tarfile.open(target, "w:gz") as archive:
        archive.add(path, path.name)
    return target


@pytest.mark.parametrize("name", ["cifar10", "cifar100"])
def test_cifar_from_a_folder_and_from_an_archive(name, tmp_path, monkeypatch):
    path, parts = write_cifar(tmp_path / "a", name)
    archives = {"cifar10": "cifar-10-python.tar.gz", "cifar100": "cifar-100-python.tar.gz"}
    (tmp_path / "b").mkdir()
    archive = archive_of(path, tmp_path / "b" / archives[name])
    for data_dir in (tmp_path / "a", path, tmp_path / "b", archive):
        for part, (images, labels) in parts.items():
            dataset = lsmha.open_dataset(name, part, data_dir=data_dir)
            assert np.array_equal(dataset.load(range(len(dataset))), images)
            assert np.array_equal(dataset.labels, labels) and dataset.labels.dtype == np.int32
            assert dataset.class_names[3] == "class 3"
    monkeypatch.setenv("LSMHA_DATA_DIR", str(tmp_path / "a"))
    assert len(lsmha.open_dataset(name, "train+test")) == sum(len(p[0]) for p in parts.values())


def test_cifar_parts_share_one_array(tmp_path):
    write_cifar(tmp_path, "cifar100")
    parts = [lsmha.open_dataset("cifar100", s, tmp_path) for s in ("train[:50%]", "train[50%:]")]
    assert parts[0]._images is parts[1]._images
    assert [len(part) for part in parts] == [3, 3]


def test_a_pickle_that_would_run_code_is_refused(tmp_path):
    path, _ = write_cifar(tmp_path, "cifar100")
    marker = tmp_path / "ran"

    class Evil:
        def __reduce__(self):
            return os.mkdir, (str(marker),)

    (path / "train").write_bytes(pickle.dumps({b"data": Evil()}, protocol=2))
    with pytest.raises(ValueError, match="only arrays.*Received: (posix|nt).mkdir"):
        lsmha.open_dataset("cifar100", "train", tmp_path)
    assert not marker.exists()


@pytest.mark.parametrize("keep", [0, 1000, -200])
def test_truncated_cifar_files_and_archives_are_refused(keep, tmp_path):
    path, _ = write_cifar(tmp_path / "a", "cifar100")
    (tmp_path / "b").mkdir()
    archive = archive_of(path, tmp_path / "b" / "cifar-100-python.tar.gz")
    archive.write_bytes(archive.read_bytes()[:keep])
    (path / "train").write_bytes((path / "train").read_bytes()[:keep])
    for data_dir in (tmp_path / "a", tmp_path / "b"):
        with pytest.raises(ValueError, match="missing, damaged or truncated"):
            lsmha.open_dataset("cifar100", "train", data_dir)


def test_cifar_with_missing_or_foreign_files(tmp_path):
    path, _ = write_cifar(tmp_path, "cifar100")
    (path / "test").unlink()
    with pytest.raises(ValueError, match="missing, damaged or truncated"):
        lsmha.open_dataset("cifar100", "test", tmp_path)
    (path / "test").write_bytes(pickle.dumps({b"labels": [1]}))
    with pytest.raises(ValueError, match="expected the key 'data'"):
        lsmha.open_dataset("cifar100", "test", tmp_path)
    rows = {b"data": np.zeros((2, 100), "uint8"), b"fine_labels": [0, 1]}
    (path / "test").write_bytes(pickle.dumps(rows))
    with pytest.raises(ValueError, match=r"rows of 3072 values. Received: shape=\(2, 100\)"):
        lsmha.open_dataset("cifar100", "test", tmp_path)
    rows = {b"data": np.zeros((2, 3072), "uint8"), b"fine_labels": [0, 100]}
    (path / "test").write_bytes(pickle.dumps(rows))
    with pytest.raises(ValueError, match="0 .. 99.*Received: labels from 0 to 100"):
        lsmha.open_dataset("cifar100", "test", tmp_path)
    archive = tmp_path / "b" / "cifar-100-python.tar.gz"
    archive.parent.mkdir()
    archive_of(tmp_path / "b", archive)
    with pytest.raises(ValueError, match="lacks a file"):
        lsmha.open_dataset("cifar100", "test", tmp_path / "b")


def test_digits():
    load_digits = pytest.importorskip("sklearn.datasets").load_digits
    parts = {part: lsmha.open_dataset("digits", part) for part in ("train", "test")}
    assert [len(part) for part in parts.values()] == [1437, 360]
    counts = {part: np.bincount(dataset.labels) for part, dataset in parts.items()}
    assert counts["test"].min() >= 34 and counts["test"].max() <= 38  # stratified
    images = np.concatenate([d.load(range(len(d))) for d in parts.values()])
    assert images.shape == (1797, 32, 32, 3) and images.dtype == np.uint8
    assert (images[..., 0] == images[..., 2]).all()
    # The two parts together are scikit-learn's images, each once, with their labels.
    original = load_digits()
    expected = []
    for picture, label in zip(original.images, original.target, strict=True):
        small = Image.fromarray(np.round(picture * 255 / 16).astype("uint8"))
        large = small.resize((32, 32), Image.Resampling.BILINEAR)
        expected.append((np.asarray(large).tobytes(), int(label)))
    labels = np.concatenate([d.labels for d in parts.values()])
    found = [
        (np.ascontiguousarray(i[..., 0]).tobytes(), int(k))
        for i, k in zip(images, labels, strict=True)
    ]
    assert sorted(found) == sorted(expected)
    again = lsmha.open_dataset("digits", "test")
    assert np.array_equal(again.load(range(360)), images[1437:])


def test_digits_without_scikit_learn(monkeypatch):
    from lsmha_keras.data.sources import digits

    monkeypatch.setitem(sys.modules, "sklearn.datasets", None)
    digits._read_digits.cache_clear()
    with pytest.raises(ImportError, match="pip install scikit-learn"):
        lsmha.open_dataset("digits")
    digits._read_digits.cache_clear()


def write_folder(root, files):
    """Writes one-coloured pictures: {"class/name.png": (level, (height, width), mode)}."""
    for name, (level, size, mode) in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        color = level if mode == "L" else (level, 0, 0, 255)[: len(mode)]
        Image.new(mode, size[::-1], color).save(path)
    return root


def test_folder_of_class_folders(tmp_path):
    files = {f"cat/{n:02}.png": (n, (8, 10), "RGB") for n in range(20)}
    files |= {f"dog/{n}.PNG": (100 + n, (20, 10), "RGBA") for n in range(4)}
    files |= {"emu/deep/er.jpg": (200, (8, 10), "L")}
    root = write_folder(tmp_path / "pets", files)
    (root / "cat" / "notes.txt").write_text("no image")
    (root / "labels.csv").write_text("file,label\ncat/00.png,cat\n")
    (root / ".cache").mkdir()
    dataset = lsmha.open_dataset(root)
    assert dataset.class_names == ["cat", "dog", "emu"]
    assert dataset.image_shape == (8, 10, 3) and len(dataset) == 25
    images = dataset.load(range(25))
    expected = {0: list(range(20)), 1: list(range(100, 104)), 2: [200]}
    for label, levels in expected.items():
        assert images[dataset.labels == label, 0, 0, 0].tolist() == levels
    # Interleaved: each half holds half of each class.
    halves = [lsmha.open_dataset(root, split) for split in ("train[:50%]", "train[50%:]")]
    counts = [np.bincount(half.labels, minlength=3).tolist() for half in halves]
    assert counts[0][:2] == [10, 2] and counts[1][:2] == [10, 2]
    small = lsmha.open_dataset("pets", data_dir=tmp_path, image_size=(4, 6))
    assert small.load([3]).shape == (1, 4, 6, 3)


def test_folder_with_parts(tmp_path):
    files = {f"train/{c}/{n}.png": (n, (8, 8), "RGB") for c in "ab" for n in range(3)}
    files |= {"test/b/0.png": (50, (8, 8), "RGB")}
    write_folder(tmp_path, files)
    test = lsmha.open_dataset(tmp_path, "test")
    # The classes are the training images', so that labels agree.
    assert test.class_names == ["a", "b"] and test.labels.tolist() == [1]
    with pytest.raises(ValueError, match="has the splits train, test .nearest: test.*split='tst'"):
        lsmha.open_dataset(tmp_path, "tst")
    write_folder(tmp_path, {"test/c/0.png": (1, (8, 8), "RGB")})
    with pytest.raises(ValueError, match="classes that .* lacks. Received: c"):
        lsmha.open_dataset(tmp_path, "test")


def test_files_of_systems_and_tools_are_ignored(tmp_path):
    files = {f"train/{c}/{n}.png": (n, (8, 8), "RGB") for c in "ab" for n in range(3)}
    files |= {f"test/{c}/0.png": (n, (8, 8), "RGB") for n, c in enumerate("ab")}
    hidden = ["__MACOSX", ".ipynb_checkpoints", "@eaDir"]
    files |= {f"train/{name}/a/0.png": (1, (8, 8), "RGB") for name in hidden}
    files |= {f"train/a/{name}/0.png": (1, (8, 8), "RGB") for name in hidden}
    files |= {f"{name}/test/a/0.png": (1, (8, 8), "RGB") for name in hidden}
    root = write_folder(tmp_path, files)
    for path in ("._train", "train/._a", "train/a/._0.png", "train/.DS_Store", "train/Thumbs.db"):
        (root / path).write_bytes(b"\0\5\x16\7")
    (root / "train/a/.hidden.png").write_bytes(b"")
    for split, levels in {"train": [0, 0, 1, 1, 2, 2], "test": [0, 1]}.items():
        dataset = lsmha.open_dataset(root, split)
        assert dataset.class_names == ["a", "b"] and len(dataset) == len(levels)
        assert dataset.load(range(len(levels)))[:, 0, 0, 0].tolist() == levels


def test_a_class_may_be_called_like_a_part(tmp_path):
    names = ("bus", "test", "train", "val")
    files = {f"{name}/0.png": (n, (8, 8), "RGB") for n, name in enumerate(names)}
    dataset = lsmha.open_dataset(write_folder(tmp_path / "vehicles", files))
    assert dataset.class_names == list(names) and dataset.labels.tolist() == [0, 1, 2, 3]
    # Inside a part, too; images without a class, as a contest's test images, are no part.
    files = {f"train/{name}/0.png": (1, (8, 8), "RGB") for name in names}
    root = write_folder(tmp_path / "contest", {**files, "test/0.png": (1, (8, 8), "RGB")})
    assert lsmha.open_dataset(root).class_names == list(names)
    with pytest.raises(ValueError, match="has the splits train.*Received: split='test'"):
        lsmha.open_dataset(root, "test")
    # What may be either is neither.
    write_folder(root, {"train/1.png": (1, (8, 8), "RGB")})
    with pytest.raises(ValueError, match="both 1.png and the folder bus"):
        lsmha.open_dataset(root)


def test_bad_folders(tmp_path):
    with pytest.raises(ValueError, match="one folder of images .* for each class"):
        lsmha.open_dataset(tmp_path)
    write_folder(tmp_path, {"a/0.png": (1, (8, 8), "RGB")})
    with pytest.raises(ValueError, match=r"no sub-folder 'test'.*'train\[80%:\]'"):
        lsmha.open_dataset(tmp_path, "test")
    (tmp_path / "a" / "1.png").write_bytes((tmp_path / "a" / "0.png").read_bytes()[:40])
    with pytest.raises(ValueError, match="1.png is not a sound image file"):
        lsmha.open_dataset(tmp_path).load([0, 1])
    with pytest.raises(ValueError, match="no file or folder"):
        lsmha.open_dataset(str(tmp_path / "missing"))
    (tmp_path / "notes.txt").write_text("text")
    with pytest.raises(ValueError, match="which is another file"):
        lsmha.open_dataset(tmp_path / "notes.txt")


def test_npz(tmp_path):
    rng = np.random.default_rng(0)
    x, y = rng.integers(0, 256, (10, 8, 8, 3), dtype="uint8"), np.arange(10)[:, None] % 5
    np.savez(tmp_path / "four.npz", x_train=x, y_train=y, x_test=x[:2, ..., 0], y_test=y[:2])
    train = lsmha.open_dataset(tmp_path / "four.npz", "train[20%:]")
    assert np.array_equal(train.load(range(8)), x[2:])
    assert train.labels.tolist() == y[2:, 0].tolist()
    test = lsmha.open_dataset("four.npz", "test", data_dir=tmp_path)
    assert test.image_shape == (8, 8, 1) and np.array_equal(test.load([1])[..., 0], x[1:2, ..., 0])
    assert test.class_names == list("01234")  # also of the labels only the other part has
    np.savez(tmp_path / "two.npz", x=x.astype("float64"), y=y, class_names=list("abcde"))
    two = lsmha.open_dataset(tmp_path / "two.npz")
    assert two.class_names == list("abcde") and np.array_equal(two.load(range(10)), x)


def test_bad_npz(tmp_path):
    x, y = np.zeros((3, 4, 4, 3), "uint8"), np.arange(3)

    def expect(message, split="train", **arrays):
        np.savez(tmp_path / "bad.npz", **arrays)
        with pytest.raises(ValueError, match=message):
            lsmha.open_dataset(tmp_path / "bad.npz", split)

    expect(r"'x_train' and 'y_train'.*Received: the arrays \['images'\]", images=x)
    expect("'x_test' and 'y_test'", split="test", x=x, y=y)
    expect("one label for each image. Received: 3 images, 2 labels", x=x, y=y[:2])
    expect("holds no images", x=x[:0], y=y[:0])
    expect("1 or 3 channels. Received: shape=.3, 4, 4, 2.", x=x[..., :2], y=y)
    expect("vector of integers. Received: shape=.3,., dtype=float64", x=x, y=y / 2)
    expect("finite. Received: label nan of sample 1", x=x, y=np.array([0, np.nan, 1]))
    expect("0 .. 2.*Received: labels from -1 to 1", x=x, y=y - 1, class_names=list("abc"))
    expect("0 .. 1, as there are 2 classes", x=x, y=y, class_names=list("ab"))
    expect("dtype=float64, values from 0.5 to 0.5", x=x + 0.5, y=y)
    expect("values from 256 to 256", x=x + np.int32(256), y=y)
    expect("fractions in 0 .. 1, not grey levels", x=x + 1.0, y=y)
    expect("Object arrays cannot be loaded", x=np.array([{}, None]), y=y)
    (tmp_path / "bad.npz").write_bytes(b"PK\x03\x04 no archive")
    with pytest.raises(ValueError, match="not a valid .npz file"):
        lsmha.open_dataset(tmp_path / "bad.npz")
    with pytest.raises(ValueError, match="no file or folder"):
        lsmha.open_dataset("missing.npz")


def test_bad_names_and_splits():
    with pytest.raises(ValueError, match="splits train, test .nearest: test.*split='tests'"):
        lsmha.open_dataset("digits", "tests")
    with pytest.raises(ValueError, match="empty; expected at least one image"):
        lsmha.open_dataset("digits", "train[10:10]")
    with pytest.raises(ValueError, match="image_size=0"):
        lsmha.open_dataset("digits", image_size=0)
    with pytest.raises(ValueError, match="must look like 'train'"):
        lsmha.open_dataset("digits", "train(5)")


def test_resizing_equals_pillow_and_selection_shares_storage():
    images = np.random.default_rng(0).integers(0, 256, (5, 12, 9, 3), dtype="uint8")
    dataset = ArrayDataset(images, [0, 1, 2, 1, 0], list("abc"), image_size=(7, 20))
    part = dataset.select([4, 1]).select(slice(1, None))
    assert part.labels.tolist() == [1] and part._images is images
    # 9 columns at 20:7 are 3 rows, from the fifth on. Columns are resized before rows.
    bilinear = Image.Resampling.BILINEAR
    wide = Image.fromarray(images[1]).resize((20, 12), bilinear)
    expected = wide.resize((20, 7), bilinear, (0, 4, 20, 7))
    assert np.array_equal(part.load([0])[0], np.asarray(expected))
    assert "5 images (7, 20, 3), 3 classes" in repr(dataset)


def test_protocol_3_pickles_of_bytes_are_read():
    from lsmha_keras.data.sources.cifar import RestrictedUnpickler

    given = {b"data": np.arange(6, dtype="uint8").reshape(2, 3), b"labels": [1, 2]}
    for protocol in (2, 3, 4):
        read = RestrictedUnpickler(io.BytesIO(pickle.dumps(given, protocol))).load()
        assert np.array_equal(read[b"data"], given[b"data"]) and read[b"labels"] == [1, 2]


def test_photos_are_turned_upright(tmp_path):

    pixels = np.zeros((4, 6, 3), "uint8")
    pixels[0] = 255
    exif = Image.Exif()
    exif[0x0112] = 6  # Orientation: to be rotated by 90 degrees clockwise.
    (tmp_path / "cat").mkdir()
    Image.fromarray(pixels).save(tmp_path / "cat" / "photo.png", exif=exif)
    image = lsmha.open_dataset(tmp_path).load([0])[0]
    np.testing.assert_array_equal(image, np.rot90(pixels, -1))


def test_what_is_at_hand_is_told_without_opening(tmp_path, monkeypatch):
    write_cifar(tmp_path, "cifar100")
    (tmp_path / "mnist" / "3.0.1").mkdir(parents=True)  # as TensorFlow Datasets prepares it
    (tmp_path / "mine.npz").touch()
    names = ("cifar100", "cifar10", "mnist:3.0.1", "mine.npz", "oxford_flowers102", "photos/")
    found = [name for name in names if can_open_offline(name, tmp_path)]
    assert found == ["cifar100", "mnist:3.0.1", "mine.npz"]
    assert not can_open_offline("cifar100")
    monkeypatch.setenv("LSMHA_DATA_DIR", str(tmp_path))
    assert can_open_offline("cifar100")
    assert can_open_offline(tmp_path / "mine.npz", "elsewhere")
