import json
import os
import pathlib
import signal
import subprocess
import sys
import textwrap
import time

import pytest

from lsmha_keras.studies.execution_table import collect_executions
from tests.studies.chief import finish, free_port, make_oracle, use_free_port
from tests.studies.tiny import study_dict
from tests.training.tiny import write_dataset

keras_tuner = pytest.importorskip("keras_tuner")

from lsmha_keras.studies import watchdog  # noqa: E402
from lsmha_keras.studies.heartbeat import Heartbeat, heartbeat_path  # noqa: E402
from lsmha_keras.studies.watchdog import Watchdog  # noqa: E402

pytestmark = pytest.mark.backend_free

ROOT = pathlib.Path(__file__).parents[2]


class Clock:
    """Stands still unless it is moved, however slow the machine is."""

    now = 0.0

    def monotonic(self):
        return self.now


@pytest.fixture
def clock(monkeypatch):
    clock = Clock()
    monkeypatch.setattr(watchdog, "time", clock)
    return clock


def test_only_the_silent_are_given_up(tmp_path, clock):
    oracle, said = make_oracle(tmp_path), []
    for worker in ("alive", "dead"):
        oracle.create_trial(worker)
    beat = heartbeat_path(tmp_path, "alive")
    beat.parent.mkdir()
    dog = Watchdog(oracle, tmp_path, say=said.append)
    for count in range(4):
        beat.write_text(str(count))
        dog.look()
        assert len(said) == (count == 3), count  # 75 seconds, of which 60 are allowed
        clock.now += 25
    assert set(oracle.ongoing_trials) == {"alive"}
    assert len(said) == 1 and "Worker dead" in said[0] and "trial 1" in said[0]


def test_errors_do_not_end_the_watch(tmp_path, monkeypatch):
    use_free_port(monkeypatch)
    oracle, said, tries = make_oracle(tmp_path), [], []

    def full_disk():
        tries.append(1)
        raise OSError("no space left")

    oracle.create_trial("dead")
    monkeypatch.setattr(oracle, "save", full_disk)
    with Watchdog(oracle, tmp_path, timeout=0.2, poll=0.05, say=said.append) as dog:
        wait_until(lambda: len(said) == 2)
        assert dog._thread.is_alive() and tries
    assert not oracle.ongoing_trials
    monkeypatch.undo()
    assert oracle.create_trial("other").trial_id == "0"  # the lock is free


def test_a_chief_without_workers_is_said_to_wait_once(tmp_path, monkeypatch, clock):
    port = use_free_port(monkeypatch)
    oracle, said = make_oracle(tmp_path), []
    oracle.create_trial("dead")
    dog = Watchdog(oracle, tmp_path, say=said.append)
    for _ in range(4):
        dog.look()
        clock.now += 70
    assert len(said) == 2
    assert "Worker dead" in said[0] and f"waits for one at 127.0.0.1:{port}" in said[1]


def test_a_returning_name_is_a_new_worker(tmp_path, clock):
    oracle, said = make_oracle(tmp_path), []
    dog = Watchdog(oracle, tmp_path, say=said.append)
    finish(oracle, oracle.create_trial("worker0"), 0.5)
    dog.look()
    oracle.tuner_ids.discard("worker0")  # as when it is sent home
    dog.look()
    clock.now += 70
    oracle.create_trial("worker0")
    dog.look()
    assert not said and set(oracle.ongoing_trials) == {"worker0"}


def wait_until(true, seconds=100.0):
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end
        time.sleep(0.02)


def test_heartbeat_changes_and_goes(tmp_path):
    path = heartbeat_path(tmp_path, "w")
    with Heartbeat(tmp_path, "w", interval=0.02):
        seen = set()
        end = time.monotonic() + 100
        while len(seen) < 3 and time.monotonic() < end:
            seen |= {path.read_text()} if path.exists() else set()
    assert len(seen) >= 3
    assert not path.exists()


def test_heartbeat_outlives_its_folder(tmp_path):
    path = heartbeat_path(tmp_path, "w")
    with Heartbeat(tmp_path, "w", interval=0.02):
        wait_until(path.exists)
        path.parent.rename(tmp_path / "gone")
        wait_until(path.exists)


MEMBER = """
    import json, os, pathlib, sys, time
    import keras
    from lsmha_keras.studies import watchdog
    from lsmha_keras.studies.search import search

    watchdog.Watchdog.__init__.__defaults__ = (20.0, 0.2, print)
    case, study, directory = sys.argv[1], json.loads(sys.argv[2]), pathlib.Path(sys.argv[3])

    class Log(keras.callbacks.Callback):
        def on_train_begin(self, logs=None):
            with directory.with_suffix(".log").open("a") as file:
                file.write(os.environ["KERASTUNER_TUNER_ID"] + "\\n")
        def on_epoch_begin(self, epoch, logs=None):
            hung = directory.with_suffix(".hung")
            if case == "kill" and epoch == 1 and not hung.exists():
                hung.write_text(str(os.getpid()))
                time.sleep(300)

    print(search(study, directory, callbacks=[Log()]))
"""


@pytest.mark.slow
@pytest.mark.parametrize("case", ["kill", "live"])
def test_chief_and_two_workers(tmp_path, case):
    space = {"num_heads": [2, 4], "learning_rate": [1e-3, 2e-3, 3e-3]}
    dataset = write_dataset(tmp_path / "pictures.npz")
    study = study_dict(dataset, space=space, tuner={"max_trials": 6})
    hung, directory = tmp_path / "search.hung", tmp_path / "search"
    members = start_members([case, json.dumps(study), str(directory)])
    try:
        if case == "kill":
            end = time.monotonic() + 200
            while not hung.exists() or not hung.read_text():
                assert time.monotonic() < end
                time.sleep(0.1)
            os.kill(int(hung.read_text()), signal.SIGKILL)
        texts = {name: member.communicate(timeout=300)[0] for name, member in members.items()}
    finally:
        for member in members.values():
            member.kill()
    assert members["chief"].returncode == 0, texts["chief"]
    workers = (tmp_path / "search.log").read_text().split()
    # Every trial once, but for the one whose worker was killed.
    assert len(workers) == (7 if case == "kill" else 6)
    assert set(workers) == {"worker0", "worker1"}
    rows = collect_executions(directory)
    assert [row["status"] for row in rows] == ["completed"] * 6
    assert ("gave no sign of life" in texts["chief"]) == (case == "kill")
    # The trial that was killed goes on after its first epoch.
    assert all(row["epochs"] == 2 for row in rows)


def start_members(arguments):
    address = {"KERASTUNER_ORACLE_IP": "127.0.0.1", "KERASTUNER_ORACLE_PORT": free_port()}
    return {
        name: subprocess.Popen(
            [sys.executable, "-c", textwrap.dedent(MEMBER), *arguments],
            cwd=ROOT,
            env={**os.environ, **address, "KERASTUNER_TUNER_ID": name},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for name in ("chief", "worker0", "worker1")
    }
