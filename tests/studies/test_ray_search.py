"""A search whose trials are tasks of Ray ends as the serial one does, whoever is killed."""

import json
import os
import pathlib
import re
import shutil
import signal
import socket
import subprocess
import sys
import textwrap
import time

import keras
import pytest
import tomli_w

from tests.checks import PATIENCE
from tests.studies.tiny import study_dict
from tests.training.tiny import read_history, write_dataset

pytest.importorskip("keras_tuner")
ray = pytest.importorskip("ray", reason="the extra `cluster` is not installed")

from lsmha_keras.errors import LsmhaError  # noqa: E402
from lsmha_keras.studies import ray_search  # noqa: E402
from lsmha_keras.studies.execution_table import collect_executions, read_table  # noqa: E402
from lsmha_keras.studies.search import search  # noqa: E402

pytestmark = [pytest.mark.backend_free, pytest.mark.slow]

ROOT = pathlib.Path(__file__).parents[2]
MEASURED = ("latency_ms", "train_seconds", "date")


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    """Four points."""
    dataset = write_dataset(tmp_path_factory.mktemp("data") / "pictures.npz")
    return study_dict(dataset, space={"num_heads": [1, 2, 4, 8]}, tuner={"max_trials": 4})


@pytest.fixture(scope="module")
def serial(study, tmp_path_factory):
    directory = tmp_path_factory.mktemp("runs") / "serial"
    search(study, directory, verbose=0)
    return table(directory)


@pytest.fixture(scope="module")
def here():
    """Starts Ray with two workers for this module."""
    with pytest.MonkeyPatch.context() as patch:
        for name, value in ray_search._SETTINGS.items():
            patch.setenv(name, value)
        before = signal.getsignal(signal.SIGTERM)
        ray.init(address="local", num_cpus=2, include_dashboard=False, log_to_driver=False)
        signal.signal(signal.SIGTERM, before)  # Ray's would stay for the tests that follow
        yield
        ray.shutdown()


def table(directory):
    """Returns the table without what was measured by a clock."""
    rows = read_table(directory / "executions.csv")
    return [{key: row[key] for key in row if key not in MEASURED} for row in rows]


def killer(marker):
    """Returns a callback that kills the first process that begins a second epoch."""

    # A class of this function's goes to the workers by value.
    class Kill(keras.callbacks.Callback):
        def on_epoch_begin(self, epoch, logs=None):
            if epoch == 1 and not marker.exists():
                marker.touch()
                os.kill(os.getpid(), signal.SIGKILL)

    return Kill()


def test_a_killed_worker_changes_nothing(study, serial, here, tmp_path, capsys):
    directory = tmp_path / "runs"
    result = search(study, directory, callbacks=[killer(tmp_path / "killed")], workers=2)
    assert (tmp_path / "killed").exists()
    assert len(serial) == 4 and table(directory) == serial
    assert len(result.rows) == 4
    histories = [read_history(directory / f"trial_{n}" / "execution_0") for n in range(4)]
    # Two epochs each: the one that was killed went on from its first.
    assert [[row["epoch"] for row in rows] for rows in histories] == [[1, 2]] * 4
    text = capsys.readouterr().out
    assert all(f"Trial {number} on " in text for number in range(4))
    assert ray.is_initialized()  # it is not the search's


def test_a_trial_that_kills_every_worker_is_a_failure(study, here, tmp_path, monkeypatch):
    monkeypatch.setattr(ray_search, "_RETRIES", 0)
    callbacks = [killer(tmp_path / "killed")]
    one = {**study, "tuner": {**study["tuner"], "max_trials": 1}}
    with pytest.raises(RuntimeError, match="All 1 executions failed.*WorkerCrashedError"):
        search(one, tmp_path / "runs", callbacks=callbacks, workers=1, verbose=0)
    (row,) = collect_executions(tmp_path / "runs")
    assert row["status"] == "failed" and row["hp.num_heads"] == 1


def test_equal_trials_wait_for_each_other(study, here, tmp_path):
    import keras_tuner

    class Stubborn(keras_tuner.oracles.RandomSearchOracle):
        def populate_space(self, trial_id):
            return {"status": "RUNNING", "values": {"num_heads": 4}}

    hp = keras_tuner.HyperParameters()
    hp.Choice("num_heads", [2, 4])
    objective = keras_tuner.Objective("val_accuracy", "max")
    oracle = Stubborn(objective, max_trials=2, hyperparameters=hp)
    result = search(study, tmp_path / "runs", oracle=oracle, workers=2, verbose=0)
    assert [row["trial"] for row in result.rows] == ["0", "1"]
    assert len({row["val_accuracy"] for row in result.rows}) == 1
    trained = list((tmp_path / "runs").glob("trial_*/execution_0/history.csv"))
    assert [path.parts[-3] for path in trained] == ["trial_0"]


def test_trials_that_do_not_fit_the_cluster(study, here, tmp_path):
    with pytest.raises(ValueError, match="No machine has 3 cores and 0 GPUs"):
        search(study, tmp_path / "runs", workers=1, trial_cores=3, verbose=0)
    with pytest.raises(ValueError, match="No machine has 1 cores and 0.5 GPUs"):
        search(study, tmp_path / "runs", workers=1, trial_gpus=0.5, verbose=0)


def test_a_cluster_with_another_token(monkeypatch):
    def init(**arguments):  # what Ray 2.60 raises for a missing or wrong token
        raise ConnectionError("Failed to connect to Ray cluster")

    monkeypatch.setattr(ray, "init", init)
    monkeypatch.setattr(ray, "is_initialized", lambda: False)
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = f"127.0.0.1:{server.getsockname()[1]}"
        with pytest.raises(LsmhaError, match=f"RAY_AUTH_TOKEN.* Received: {address}"):
            ray_search.RayCluster(address=address).__enter__()


def test_callbacks_that_cannot_be_pickled(study, here, tmp_path):
    callback = keras.callbacks.LambdaCallback()
    callback.generator = (number for number in range(3))
    with pytest.raises(ValueError, match="must be picklable"):
        search(study, tmp_path / "runs", callbacks=[callback], workers=1, verbose=0)


def test_a_full_disk_does_not_count_as_a_failed_trial(study, here, tmp_path):
    class Full(keras.callbacks.Callback):
        def on_train_begin(self, logs=None):
            raise OSError(28, "No space left on device")

    with pytest.raises(OSError, match="No space left on device"):
        search(study, tmp_path / "runs", callbacks=[Full()], workers=1, verbose=0)
    assert not list((tmp_path / "runs").glob("trial_*/execution_*/execution.json"))


DRIVER = """
    import json, sys, time
    import keras
    from lsmha_keras.studies.search import search

    class Slow(keras.callbacks.Callback):
        def on_epoch_begin(self, epoch, logs=None):
            if epoch == 1:  # Long enough to be killed there.
                time.sleep(300)

    search(json.loads(sys.argv[1]), sys.argv[2], callbacks=[Slow()], workers=2)
"""


def test_a_killed_driver_goes_on(study, serial, here, tmp_path):
    """The driver that is killed starts its own Ray; the one that goes on is this process."""
    directory = tmp_path / "runs"
    command = [sys.executable, "-c", textwrap.dedent(DRIVER), json.dumps(study), directory]
    driver = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    try:
        end = time.monotonic() + PATIENCE
        # Two trials have a checkpoint.
        while len(list(directory.glob("trial_*/execution_0/checkpoints/last*"))) < 2:
            assert driver.poll() is None, driver.stdout.read().decode()
            assert time.monotonic() < end
            time.sleep(0.1)
    finally:
        driver.kill()
        driver.wait()
    assert not list(directory.glob("trial_*/execution_0/execution.json"))
    search(study, directory, workers=2, verbose=0)
    assert table(directory) == serial
    for number in range(2):
        history = read_history(directory / f"trial_{number}" / "execution_0")
        assert [row["epoch"] for row in history] == [1, 2]


def test_the_example_of_a_cluster(study, serial, tmp_path):
    """Two nodes, one worker killed: the script's table is the serial one, and no node is left."""
    script = ROOT / "examples" / "cluster.sh"
    path = os.pathsep.join([str(pathlib.Path(sys.executable).parent), os.environ["PATH"]])
    if not script.exists() or not all(shutil.which(name, path=path) for name in ("lsmha", "pgrep")):
        pytest.skip("needs a checkout, the command `lsmha` and pgrep")
    (tmp_path / "study.toml").write_text(tomli_w.dumps(study))
    with socket.socket() as free:
        free.bind(("", 0))
        port = free.getsockname()[1]
    done = subprocess.run(
        [script, tmp_path / "study.toml", tmp_path / "runs"],
        env={**os.environ, "PATH": path, "PYTHONPATH": str(ROOT), "PORT": str(port)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    killed = re.search(r"killed worker (\d+)", done.stdout)[1]
    assert f"Worker PID: {killed}" in done.stdout + done.stderr  # Ray saw it, and tried again
    assert len(serial) == 4 and table(tmp_path / "runs") == serial
    with pytest.raises(ConnectionError):
        socket.create_connection(("localhost", port))
