import json
import os
import pathlib
import signal
import socket
import subprocess
import sys
import textwrap
import time

import pytest

from lsmha_keras.studies.execution_table import collect_executions
from tests.studies.tiny import study_dict
from tests.training.tiny import write_dataset

keras_tuner = pytest.importorskip("keras_tuner")

from lsmha_keras.studies.heartbeat import Heartbeat, heartbeat_path  # noqa: E402
from lsmha_keras.studies.watchdog import Watchdog, give_up_worker, tolerate_losses  # noqa: E402

ROOT = pathlib.Path(__file__).parents[2]


@pytest.fixture
def oracle(tmp_path):
    hp = keras_tuner.HyperParameters()
    hp.Choice("heads", list(range(10)))
    oracle = keras_tuner.oracles.RandomSearchOracle(
        keras_tuner.Objective("score", "max"), max_trials=3, hyperparameters=hp, seed=1
    )
    oracle._set_project_dir(str(tmp_path), "search")
    oracle.verbose = 0
    return oracle


def finish(oracle, trial, score):
    oracle.update_trial(trial.trial_id, {"score": score})
    trial.status = "COMPLETED"
    oracle.end_trial(trial)


def test_a_lost_trial_goes_to_the_next_worker_and_does_not_count(oracle):
    lost = oracle.create_trial("worker0")
    assert give_up_worker(oracle, "worker0") == lost.trial_id
    assert not oracle.tuner_ids and not oracle.ongoing_trials
    again = oracle.create_trial("worker1")
    assert again.trial_id == lost.trial_id
    assert again.hyperparameters.values == lost.hyperparameters.values
    finish(oracle, again, 0.5)
    assert oracle.end_order == [lost.trial_id]
    assert oracle.trials[lost.trial_id].status == "COMPLETED"


def test_a_worker_without_a_trial(oracle):
    oracle.tuner_ids.add("worker0")
    assert give_up_worker(oracle, "worker0") is None
    assert not oracle.tuner_ids


@pytest.mark.parametrize("begun_again", [False, True])
def test_a_worker_that_comes_back_does_no_harm(oracle, begun_again):
    tolerate_losses(oracle)
    trial = oracle.create_trial("worker0")
    give_up_worker(oracle, "worker0")
    other = oracle.create_trial("worker1") if begun_again else None
    finish(oracle, trial, 0.5)  # it was only suspended
    if begun_again:
        assert other.trial_id == trial.trial_id
        finish(oracle, other, 0.5)
    assert oracle.end_order == [trial.trial_id]
    assert not oracle.ongoing_trials
    # Nobody is given the finished trial.
    assert oracle.create_trial("worker2").trial_id != trial.trial_id


def test_only_the_silent_are_given_up(oracle, tmp_path):
    said = []
    with Heartbeat(tmp_path, "alive", interval=0.05):
        for worker in ("alive", "dead"):
            oracle.create_trial(worker)
        with Watchdog(oracle, tmp_path, timeout=0.6, poll=0.05, say=said.append):
            time.sleep(1.5)
    assert set(oracle.ongoing_trials) == {"alive"}
    assert len(said) == 1 and "Worker dead" in said[0] and "trial 1" in said[0]


def test_heartbeat_changes_and_goes(tmp_path):
    path = heartbeat_path(tmp_path, "w")
    with Heartbeat(tmp_path, "w", interval=0.02):
        seen = set()
        end = time.monotonic() + 5
        while len(seen) < 3 and time.monotonic() < end:
            seen |= {path.read_text()} if path.exists() else set()
    assert len(seen) >= 3
    assert not path.exists()


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
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    address = {"KERASTUNER_ORACLE_IP": "127.0.0.1", "KERASTUNER_ORACLE_PORT": str(port)}
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
