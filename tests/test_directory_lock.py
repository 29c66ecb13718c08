"""Two processes that want one directory."""

import json
import os
import pathlib
import platform
import signal
import subprocess
import sys
import threading
import time

import pytest

from lsmha_keras import directory_lock
from lsmha_keras.directory_lock import NAME, DirectoryLock
from tests.checks import PATIENCE

pytestmark = pytest.mark.backend_free

ROOT = pathlib.Path(__file__).parents[1]
HOLD = """
import pathlib, sys, time
from lsmha_keras.directory_lock import DirectoryLock
with DirectoryLock(sys.argv[1]):
    print("held", flush=True)
    time.sleep(300)
"""
posix = pytest.mark.skipif(os.name != "posix", reason="signals and process numbers are POSIX's")


@pytest.fixture
def holder(tmp_path):
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(tmp_path)],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout.readline() == "held\n"
    yield process
    process.kill()
    process.wait()


@posix
def test_the_other_process_is_named(holder, tmp_path):
    with pytest.raises(BlockingIOError) as error, DirectoryLock(tmp_path):
        pytest.fail("two processes hold one lock")
    message = str(error.value)
    assert f"process {holder.pid} on {platform.node()} since " in message
    assert str(tmp_path / NAME) in message and "\n" not in message


@posix
def test_the_lock_of_a_killed_process_is_taken_over(holder, tmp_path, monkeypatch):
    holder.send_signal(signal.SIGKILL)
    holder.wait()
    assert (tmp_path / NAME).exists()
    # Known at once, without waiting for a sign of life.
    monkeypatch.setattr(DirectoryLock, "_changed", lambda lock: pytest.fail("it waited"))
    with DirectoryLock(tmp_path) as lock:
        assert json.loads(lock.path.read_text())["pid"] == os.getpid()
        with pytest.raises(BlockingIOError, match=f"process {os.getpid()} "):
            DirectoryLock(tmp_path).__enter__()
    assert list(tmp_path.iterdir()) == []


@posix
def test_a_process_that_got_the_same_number_is_not_the_holder(holder, tmp_path, monkeypatch):
    record = json.loads((tmp_path / NAME).read_text())
    if record["started"] is None:
        pytest.skip("this system does not tell when a process started")
    (tmp_path / NAME).write_text(json.dumps({**record, "started": record["started"] - 1}))
    with DirectoryLock(tmp_path):
        assert json.loads((tmp_path / NAME).read_text())["pid"] == os.getpid()


def write_foreign(path):
    record = {"pid": 7, "host": "elsewhere", "place": "another boot", "started": 1, "token": "x"}
    path.write_text(json.dumps({**record, "since": "yesterday", "command": "lsmha train"}))


@pytest.mark.parametrize("content", ["foreign", "", "{"])
def test_a_holder_elsewhere_without_a_sign_of_life_is_gone(tmp_path, content):
    if content == "foreign":
        write_foreign(tmp_path / NAME)
    else:
        (tmp_path / NAME).write_text(content)  # killed while it wrote its record
    with DirectoryLock(tmp_path, patience=0.5):
        assert json.loads((tmp_path / NAME).read_text())["pid"] == os.getpid()


def test_a_holder_elsewhere_that_lives_is_named(tmp_path):
    path = tmp_path / NAME
    write_foreign(path)
    stop = threading.Event()

    def beat():
        while not stop.wait(0.05):
            path.touch()

    thread = threading.Thread(target=beat)
    thread.start()
    try:
        with pytest.raises(BlockingIOError, match="process 7 on elsewhere since yesterday"):
            DirectoryLock(tmp_path, patience=30.0).__enter__()
    finally:
        stop.set()
        thread.join()


def test_a_lock_gives_signs_of_life(tmp_path):
    with DirectoryLock(tmp_path, interval=0.01) as lock:
        os.utime(lock.path, (0, 0))
        deadline = time.monotonic() + PATIENCE
        while lock.path.stat().st_mtime == 0:
            assert time.monotonic() < deadline
            time.sleep(0.01)


def test_of_several_that_find_a_dead_holder_one_gets_the_lock(tmp_path, monkeypatch):
    write_foreign(tmp_path / NAME)
    held, refused, start = [], [], threading.Barrier(4)

    def take():
        start.wait()
        lock = DirectoryLock(tmp_path, patience=0.5)
        try:
            lock.__enter__()
            held.append(lock)
        except BlockingIOError as error:
            refused.append(error)

    threads = [threading.Thread(target=take) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(held) == 1 and len(refused) == 3
    held[0].__exit__()
    assert list(tmp_path.iterdir()) == []


def test_the_lock_of_another_stays(tmp_path):
    lock = DirectoryLock(tmp_path)
    lock.__enter__()
    write_foreign(lock.path)  # somebody removed ours, and another process made its own
    lock.__exit__()
    assert json.loads(lock.path.read_text())["host"] == "elsewhere"


def test_without_the_proc_file_system(tmp_path, monkeypatch):
    monkeypatch.setattr(directory_lock, "_started", lambda pid: None)
    with DirectoryLock(tmp_path), pytest.raises(BlockingIOError):
        DirectoryLock(tmp_path).__enter__()
