import collections
import os
import pathlib
import signal
import subprocess
import sys
import textwrap
import time

import pytest

from tests.studies.chief import free_port

pytest.importorskip("keras_tuner")

pytestmark = pytest.mark.backend_free

ROOT = pathlib.Path(__file__).parents[2]
MEMBER = """
    import os, pathlib, sys, time
    import keras_tuner
    from lsmha_keras.studies.chief_address import check_chief, check_port
    from lsmha_keras.studies.heartbeat import Heartbeat
    from lsmha_keras.studies.watchdog import Watchdog
    from tests.studies.chief import make_oracle

    case, directory = sys.argv[1], pathlib.Path(sys.argv[2])
    name = os.environ["KERASTUNER_TUNER_ID"]
    hung = directory / "hung"

    def hang(when):
        if case == when and not hung.exists():
            hung.write_text(str(os.getpid()))
            time.sleep(300)

    class Tuner(keras_tuner.engine.base_tuner.BaseTuner):
        def pre_create_trial(self):
            time.sleep(0.1)
        def run_trial(self, trial):
            if trial.trial_id == "1":
                hang("in a trial")
            time.sleep(0.3)
            with (directory / "runs").open("a") as file:
                file.write(f"{trial.trial_id} {name}\\n")
            return 0.5
        def on_trial_end(self, trial):
            super().on_trial_end(trial)
            if trial.trial_id == "3":
                hang("after the last")

    tuner = Tuner(make_oracle(directory, max_trials=4), directory=directory, project_name="s")
    if name == "chief":
        check_port()
        with Watchdog(tuner.oracle, directory, timeout=3.0, poll=0.2):
            tuner.search(verbose=0)
        print(sorted((trial.trial_id, trial.status) for trial in tuner.oracle.trials.values()))
    else:
        check_chief(60)
        with Heartbeat(directory, name, interval=0.5):
            tuner.search()
"""


@pytest.mark.slow
@pytest.mark.parametrize(
    "case, workers", [("nothing", 2), ("in a trial", 2), ("after the last", 1)]
)
def test_every_trial_is_run_once_and_the_chief_ends(tmp_path, case, workers):
    names = ["chief", *(f"worker{i}" for i in range(workers))]
    port, hung = free_port(), tmp_path / "hung"
    members = {name: start(name, port, case, tmp_path) for name in names}
    try:
        if case != "nothing":
            end = time.monotonic() + 90
            while not hung.exists() or not hung.read_text():
                assert time.monotonic() < end
                time.sleep(0.05)
            os.kill(int(hung.read_text()), signal.SIGKILL)
        texts = {name: member.communicate(timeout=120)[0] for name, member in members.items()}
    finally:
        for member in members.values():
            member.kill()
    codes = collections.Counter(member.returncode for member in members.values())
    killed = int(case != "nothing")
    assert codes == collections.Counter({0: len(members) - killed, -signal.SIGKILL: killed}), texts
    assert members["chief"].returncode == 0
    runs = [line.split() for line in (tmp_path / "runs").read_text().splitlines()]
    assert sorted(trial for trial, _ in runs) == ["0", "1", "2", "3"]
    assert str([(trial, "COMPLETED") for trial in "0123"]) in texts["chief"]
    assert ("; trial 1 goes to another" in texts["chief"]) == (case == "in a trial")


def start(name, port, case, directory):
    address = {"KERASTUNER_ORACLE_IP": "127.0.0.1", "KERASTUNER_ORACLE_PORT": port}
    return subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(MEMBER), case, str(directory)],
        cwd=ROOT,
        env={**os.environ, **address, "KERASTUNER_TUNER_ID": name, "KERAS_BACKEND": "jax"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
