import os
import pathlib
import signal
import socket
import subprocess
import sys
import textwrap
import time

import pytest

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
    import os, pathlib, sys, time
    import keras_tuner
    from lsmha_keras.studies import distributed, watchdog
    from lsmha_keras.studies.distributed import member_of_search, role_in_search

    watchdog.Watchdog.__init__.__defaults__ = (3.0, 0.2, print)
    directory = pathlib.Path(sys.argv[1])

    class Tuner(keras_tuner.engine.base_tuner.BaseTuner):
        def run_trial(self, trial, **kwargs):
            with (directory / "ran.txt").open("a") as file:
                file.write(f"{trial.trial_id} {self.tuner_id}\\n")
            hung = directory / "hung"
            if sys.argv[2] == "kill" and trial.trial_id == "1" and not hung.exists():
                hung.write_text(str(os.getpid()))
                time.sleep(300)
            time.sleep(0.5)
            return {"score": 1.0}
        def pre_create_trial(self):
            time.sleep(0.1)
        def get_state(self):
            return {}
        def set_state(self, state):
            pass

    hp = keras_tuner.HyperParameters()
    hp.Choice("heads", list(range(100)))
    oracle = keras_tuner.oracles.RandomSearchOracle(
        keras_tuner.Objective("score", "max"), max_trials=6, hyperparameters=hp, seed=1
    )
    tuner = Tuner(oracle, directory=str(directory), project_name="search")
    with member_of_search(tuner, role_in_search(), print):
        tuner.search(verbose=0)
"""


@pytest.mark.slow
@pytest.mark.parametrize("case", ["kill", "live"])
def test_chief_and_two_workers(tmp_path, case):
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    members = {}
    for name in ("chief", "worker0", "worker1"):
        environment = {
            **os.environ,
            "KERASTUNER_TUNER_ID": name,
            "KERASTUNER_ORACLE_IP": "127.0.0.1",
            "KERASTUNER_ORACLE_PORT": str(port),
        }
        members[name] = subprocess.Popen(
            [sys.executable, "-c", textwrap.dedent(MEMBER), tmp_path, case],
            cwd=ROOT,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
    try:
        if case == "kill":
            end = time.monotonic() + 90
            while not (tmp_path / "hung").exists() or not (tmp_path / "hung").read_text():
                assert time.monotonic() < end
                time.sleep(0.1)
            os.kill(int((tmp_path / "hung").read_text()), signal.SIGKILL)
        texts = {name: member.communicate(timeout=150)[0] for name, member in members.items()}
    finally:
        for member in members.values():
            member.kill()
    assert members["chief"].returncode == 0, texts["chief"]
    ran = [line.split() for line in (tmp_path / "ran.txt").read_text().splitlines()]
    trials = sorted(trial for trial, _ in ran)
    if case == "live":
        assert trials == ["0", "1", "2", "3", "4", "5"]
        assert {worker for _, worker in ran} == {"worker0", "worker1"}
    else:
        assert trials == ["0", "1", "1", "2", "3", "4", "5"]
        assert len({worker for trial, worker in ran if trial == "1"}) == 2
        assert "gave no sign of life" in texts["chief"]
