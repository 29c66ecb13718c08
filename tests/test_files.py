"""Writing to a full disk, and directories that were or were not made by this package."""

import doctest
import errno
import inspect
import os
import re
import subprocess
import textwrap

import keras
import numpy as np
import pytest

import lsmha_keras as lsmha
from lsmha_keras import checksums, directory_lock, files
from lsmha_keras.files import (
    append_atomically,
    check_room,
    claim_directory,
    fill_directory,
    is_hidden,
    write_atomically,
)

# Keras writes its files itself, with the same code on every backend.
pytestmark = pytest.mark.backend_free
SIZE = 3 * 2**20


@pytest.fixture
def small_disk(tmp_path):
    """A file system of 3 MiB, or a limit on the size of files, which gives other errors."""
    path = tmp_path / "small"
    path.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", f"size={SIZE}", "tmpfs", str(path)]
    try:
        subprocess.run(mount, check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError) as error:
        pytest.skip(f"a small file system cannot be mounted here: {error}")
    yield path
    subprocess.run(["umount", "--lazy", str(path)], check=True)


@pytest.fixture
def small_files():
    """Limits the size of this process's files to 64 KiB."""
    resource = pytest.importorskip("resource", reason="limits of a process are POSIX's")
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2**16, before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, before)


def fill(disk, left):
    with (disk / "filler").open("wb") as file:
        file.write(bytes(os.statvfs(disk).f_bavail * os.statvfs(disk).f_frsize - left))


def names(directory):
    return sorted(path.relative_to(directory).as_posix() for path in directory.rglob("*"))


def check_no_room(error, path):
    assert error.value.errno == errno.ENOSPC
    assert re.fullmatch(
        rf"Cannot write {path}: the disk is full \([\d.,]+ (MB|bytes) needed, "
        r"[\d.,]+ (MB|bytes) free\)\. What was there before is unchanged\.",
        str(error.value),
    )


def test_a_full_disk_leaves_the_old_file(small_disk):
    path = small_disk / "state"
    write_atomically(path, "old")
    fill(small_disk, 100_000)
    with pytest.raises(OSError) as error:
        write_atomically(path, bytes(200_000))
    check_no_room(error, path)
    assert "(0.2 MB needed, " in str(error.value)
    # Nobody knew the size: the disk becomes full while the file is written.
    with pytest.raises(OSError, match=f"Cannot write {path}: the disk is full") as error:
        write_atomically(path, lambda file: file.write(bytes(200_000)))
    assert error.value.errno == errno.ENOSPC
    assert path.read_text() == "old" and names(small_disk) == ["filler", "state"]


def test_a_full_disk_leaves_the_table_that_was_appended_to(small_disk):
    path = small_disk / "table.csv"
    append_atomically(path, "a,b\n")
    fill(small_disk, 0)
    with pytest.raises(OSError, match=f"Cannot write {path}: the disk is full"):
        append_atomically(path, "1" * 10_000 + "\n")
    assert path.read_text() == "a,b\n"
    (small_disk / "filler").unlink()
    append_atomically(path, "1,2\n")
    assert path.read_text() == "a,b\n1,2\n"


def small_classifier():
    return lsmha.CCTImageClassifier.from_preset("cct_2_3x2", num_classes=4)


@pytest.mark.parametrize("left", [0, 100_000, 700 * 1024, 1_500_000])
@pytest.mark.parametrize("existed", [False, True])
def test_a_preset_that_does_not_fit(small_disk, left, existed):
    """HDF5 ends the process with a segmentation fault when the disk is full."""
    path = small_disk / "preset"
    if existed:
        path.mkdir()
        (path / "notes.txt").write_text("mine")
    fill(small_disk, left)
    before = names(small_disk)
    with pytest.raises(OSError) as error:
        small_classifier().save_to_preset(str(path))
    assert error.value.errno == errno.ENOSPC
    assert f"Cannot write {small_disk}" in str(error.value)
    assert names(small_disk) == before


def test_a_preset_that_fits_and_one_over_it(small_disk):
    path = small_disk / "preset"
    model = small_classifier()
    model.save_to_preset(str(path))
    # Both copies do not fit at once: the first one stays as it was.
    fill(small_disk, 100_000)
    with pytest.raises(OSError, match="the disk is full"):
        small_classifier().save_to_preset(str(path))
    loaded = lsmha.CCTImageClassifier.from_preset(str(path))
    for ours, theirs in zip(model.weights, loaded.weights, strict=True):
        np.testing.assert_array_equal(*map(keras.ops.convert_to_numpy, (ours, theirs)))


def test_files_larger_than_the_limit(small_files, tmp_path):
    with pytest.raises(OSError, match="larger than the limit") as error:
        write_atomically(tmp_path / "state", bytes(100_000))
    assert error.value.errno == errno.EFBIG and str(tmp_path / "state") in str(error.value)
    with pytest.raises(OSError, match="larger than the limit"):
        small_classifier().save_to_preset(str(tmp_path / "preset"))
    assert names(tmp_path) == []


def test_free_space_is_checked_before_anything_is_written(tmp_path):
    with pytest.raises(OSError, match=r"huge: the disk is full \(1,000,000,000,000.0 MB needed"):
        check_room(tmp_path / "huge", 10**18)
    check_room(tmp_path / "small", 1)


def test_a_directory_appears_whole_or_not_at_all(tmp_path):
    path = tmp_path / "made"
    with pytest.raises(RuntimeError), fill_directory(path) as folder:
        (folder / "a").write_text("half")
        raise RuntimeError
    assert names(tmp_path) == []
    with fill_directory(path) as folder:
        (folder / "a").write_text("1")
        assert not path.exists()
    assert (path / "a").read_text() == "1"
    # In one that exists, other files stay, unless it is to be replaced.
    with fill_directory(path) as folder:
        (folder / "sub").mkdir()
        (folder / "sub" / "b").write_text("2")
    assert names(path) == ["a", "sub", "sub/b"]
    with fill_directory(path, replace=True) as folder:
        (folder / "c").write_text("3")
    assert names(tmp_path) == ["made", "made/c"]


def test_a_relative_directory_is_filled(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with fill_directory(".") as folder:
        (folder / "a").write_text("1")
    assert names(tmp_path) == ["a"]


def test_errors_name_the_file(tmp_path):
    missing = tmp_path / "none" / "file"
    with pytest.raises(OSError, match=f"Cannot write {missing} .No such file or directory"):
        write_atomically(missing, "x")
    with pytest.raises(OSError, match=f"Cannot write {tmp_path} "):
        write_atomically(tmp_path, "x")


@pytest.mark.parametrize("module", [checksums, files, directory_lock])
def test_the_examples_run(module, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert doctest.testmod(module).failed == 0
    blocks = re.findall(r"```python\n(.*?)```", inspect.getsource(module), re.DOTALL)
    for block in blocks:
        exec(textwrap.dedent(block), dict(vars(module)))
    assert blocks


@pytest.mark.parametrize("name", ["._0.png", ".DS_Store", "Thumbs.db", "__MACOSX", ".git"])
def test_hidden_names(name):
    assert is_hidden(name) and not is_hidden(f"a{name}")


def test_a_directory_is_claimed_once(tmp_path):
    path = tmp_path / "mine"
    assert claim_directory(path, "run") == claim_directory(str(path), "run") == path
    with pytest.raises(ValueError, match=r"another kind of work \(run, not study\)"):
        claim_directory(path, "study")
    (tmp_path / ".DS_Store").write_text("")
    with pytest.raises(ValueError, match=r"by a study of lsmha_keras \(mine\); choose an empty"):
        claim_directory(tmp_path, "study")
    assert claim_directory(tmp_path, "study", lambda path: True) == tmp_path
