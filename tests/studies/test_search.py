import csv
import errno
import json
import os
import pathlib
import signal
import socket
import subprocess
import sys
import textwrap

import pytest

from lsmha_keras.studies import execution as run_execution_module
from tests.checks import PATIENCE
from tests.studies.tiny import study_dict
from tests.training.tiny import read_history, write_dataset

pytest.importorskip("keras_tuner")

from lsmha_keras.studies.search import search  # noqa: E402
from lsmha_keras.training.recipe import load_recipe  # noqa: E402
from lsmha_keras.training.train import train  # noqa: E402

ROOT = pathlib.Path(__file__).parents[2]


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    return write_dataset(tmp_path_factory.mktemp("data") / "pictures.npz")


@pytest.fixture(scope="module")
def grid(dataset, tmp_path_factory):
    """Two head counts, two seeds each; the weights of one trial are kept."""
    study = study_dict(dataset, tuner={"executions_per_trial": 2, "keep": 1, "seed": 5})
    return study, search(study, tmp_path_factory.mktemp("runs") / "grid", verbose=0)


@pytest.fixture
def no_training(monkeypatch):
    """Counts trainings and does none."""
    calls = []

    def fit(recipe, sources, directory, callbacks=(), verbose=0):
        calls.append(recipe)
        raise MemoryError("no more memory")

    monkeypatch.setattr(run_execution_module, "fit_recipe", fit)
    return calls


def test_every_execution_is_a_row(grid):
    _, result = grid
    assert [(r["hp.num_heads"], r["execution"], r["seed"], r["status"]) for r in result.rows] == [
        (heads, execution, 5 + execution, "completed") for heads in (2, 4) for execution in (0, 1)
    ]
    for row in result.rows:
        run = result.directory / f"trial_{row['trial']}" / f"execution_{row['execution']}"
        assert row["score"] == row["val_accuracy"] == read_history(run)[-1]["val_accuracy"]
        assert row["latency_ms"] > 0 and row["train_seconds"] > 0 and row["epochs"] == 2


@pytest.mark.backend_free
def test_a_search_over_kinds_of_attention(dataset, tmp_path):
    options = {"moh": {"num_shared": 1, "top_k": 1}}
    space = {"attention": {"choices": ["multi_query", "moh"], "options": options}}
    schedule = {"epochs": 1, "warmup_epochs": 0}
    study = study_dict(dataset, space=space, recipe={"schedule": schedule})
    result = search(study, tmp_path / "kinds", verbose=0)
    assert [(r["hp.attention"], r["status"]) for r in result.rows] == [
        ("multi_query", "completed"),
        ("moh", "completed"),
    ]
    recipes = [
        load_recipe(tmp_path / "kinds" / f"trial_{trial}" / "execution_0" / "recipe.toml")
        for trial in (0, 1)
    ]
    assert [r.model.overrides["attention_options"] for r in recipes] == [{}, options["moh"]]
    few, many = (row["parameters"] for row in result.rows)
    assert few < many
    result.write()
    assert "| moh |" in (tmp_path / "kinds" / "report.md").read_text()


def test_an_execution_is_what_training_its_recipe_gives(grid, tmp_path):
    _, result = grid
    run = result.directory / "trial_0" / "execution_1"
    again = train(run / "recipe.toml", tmp_path / "again", verbose=0)
    assert again.history[-1]["val_accuracy"] == result.rows[1]["val_accuracy"]
    assert again.model.count_params() == result.rows[1]["parameters"]


def test_only_the_best_keep_weights(grid):
    _, result = grid
    kept = {path.parts[-3] for path in result.directory.glob("trial_*/execution_*/checkpoints")}
    assert kept == {f"trial_{result.best['trial']}"}


def test_written(grid):
    _, result = grid
    result.write()
    with (result.directory / "executions.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [float(row["val_accuracy"]) for row in rows] == [r["val_accuracy"] for r in result.rows]
    assert "num_heads" in (result.directory / "report.md").read_text()
    with (result.directory / "front.csv").open(newline="") as file:
        front = list(csv.DictReader(file))
    means = {
        trial: sum(r["val_accuracy"] for r in result.rows if r["trial"] == trial) / 2
        for trial in ("0", "1")
    }
    assert max(float(point["value"]) for point in front) == pytest.approx(max(means.values()))
    assert result.recipe().model.overrides["num_heads"] == result.best["hp.num_heads"]


def test_a_finished_study_is_not_repeated(grid, no_training):
    study, result = grid
    again = search(study, result.directory, verbose=0)
    assert again.rows == result.rows and not no_training


def test_more_trials_but_no_other_study(grid, no_training):
    study, result = grid
    other = {**study, "space": {"num_heads": [2, 8]}}
    with pytest.raises(ValueError, match=r"space.num_heads is \[2, 4\] there and \[2, 8\] here"):
        search(other, result.directory, verbose=0)
    more = {**study, "tuner": {**study["tuner"], "max_trials": 3}}
    assert search(more, result.directory, verbose=0).rows == result.rows  # the grid has no third


@pytest.mark.backend_free
def test_fresh_removes_what_a_search_wrote(dataset, tmp_path, no_training):
    for name in ("first", "second"):
        with pytest.raises(RuntimeError, match="All 1 executions failed"):
            study = study_dict(dataset, name=name, tuner={"max_trials": 1})
            search(study, tmp_path, resume=name == "first", verbose=0)
        (tmp_path / "mine.txt").write_text("mine")
    assert [recipe.name for recipe in no_training] == ["first_0", "second_0"]
    assert (tmp_path / "mine.txt").exists()


@pytest.mark.backend_free
def test_failures_are_written_down_and_passed(dataset, tmp_path, capsys):
    space = {"learning_rate": [1e35, 2e-2], "num_heads": 2}
    result = search(study_dict(dataset, space=space), tmp_path / "runs", verbose=1)
    assert [row["status"] for row in result.rows] == ["failed", "completed"]
    assert "NonFiniteLossError" in result.rows[0]["error"]
    assert "failed: NonFiniteLossError" in capsys.readouterr().out
    assert (tmp_path / "runs" / "trial_0" / "execution_0" / "error.txt").exists()


@pytest.mark.backend_free
def test_a_full_disk_does_not_count_as_a_failed_trial(dataset, tmp_path, monkeypatch):
    fit = run_execution_module.fit_recipe
    study = study_dict(dataset, tuner={"max_trials": 1})

    def full(*args, **kwargs):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(run_execution_module, "fit_recipe", full)
    with pytest.raises(OSError, match="No space left on device"):
        search(study, tmp_path / "runs", verbose=0)
    assert not list((tmp_path / "runs").glob("trial_*/execution_*/execution.json"))
    monkeypatch.setattr(run_execution_module, "fit_recipe", fit)
    result = search(study, tmp_path / "runs", verbose=0)
    assert [(row["trial"], row["status"]) for row in result.rows] == [("0", "completed")]


@pytest.mark.backend_free
def test_equal_trials_are_trained_once(dataset, tmp_path, monkeypatch):
    import keras_tuner

    class Stubborn(keras_tuner.oracles.RandomSearchOracle):
        def populate_space(self, trial_id):
            return {"status": "RUNNING", "values": {"num_heads": 4}}

    hp = keras_tuner.HyperParameters()
    hp.Choice("num_heads", [2, 4])
    fit, trained = run_execution_module.fit_recipe, []
    monkeypatch.setattr(
        run_execution_module, "fit_recipe", lambda *args: [trained.append(1), fit(*args)][1]
    )
    objective = keras_tuner.Objective("val_accuracy", "max")
    oracle = Stubborn(objective, max_trials=3, hyperparameters=hp)
    result = search(study_dict(dataset), tmp_path / "runs", oracle=oracle, verbose=0)
    assert [row["trial"] for row in result.rows] == ["0", "1", "2"] and len(trained) == 1
    assert len({row["val_accuracy"] for row in result.rows}) == 1
    assert result.best["trial"] == "0" and result.recipe().model.overrides["num_heads"] == 4


@pytest.mark.backend_free
def test_many_failures_do_not_stop_it_but_all_do(dataset, tmp_path, no_training):
    space = {"num_heads": [1, 2, 4, 8, 16]}
    study = study_dict(dataset, space=space, tuner={"max_trials": 5})
    with pytest.raises(RuntimeError, match="All 5 executions failed.*MemoryError: no more memory"):
        search(study, tmp_path / "runs", verbose=0)
    assert [r.model.overrides["num_heads"] for r in no_training] == [1, 2, 4, 8, 16]


@pytest.mark.backend_free
def test_budget(dataset, tmp_path, no_training):
    # The one block that is not convolutional: heads of width 8 have fewer weights.
    study = study_dict(dataset, space={"num_heads": 2, "head_dim": [8, 32]})
    with pytest.raises(RuntimeError):
        search(study, tmp_path / "all", verbose=0)
    rows = {row["hp.head_dim"]: row for row in _read(tmp_path / "all")}
    small, large = (rows[width]["parameters"] for width in (8, 32))
    # Q, K, V and the output: 4 x hidden x heads x width.
    assert large - small == 4 * 16 * 2 * (32 - 8)
    no_training.clear()
    study["budget"] = {"parameters": small}
    with pytest.raises(ValueError):
        search(study, tmp_path / "some", verbose=0)
    assert [r.model.overrides["head_dim"] for r in no_training] == [8]
    assert {r["hp.head_dim"]: r["status"] for r in _read(tmp_path / "some")} == {
        8: "failed",
        32: "infeasible",
    }
    no_training.clear()
    study["budget"] = {"parameters": small - 1}
    message = rf"None of 2 candidates.*parameters {small} \(budget {small - 1}\), with.*head_dim=8"
    with pytest.raises(ValueError, match=message):
        search(study, tmp_path / "none", verbose=0)
    assert not no_training


@pytest.mark.slow
@pytest.mark.backend_free
def test_hyperband_goes_on_from_the_trial_it_promotes(dataset, tmp_path):
    recipe = study_dict(dataset)["recipe"] | {"schedule": {"epochs": 2, "decay": "constant"}}
    space = {"num_heads": [2, 4], "learning_rate": {"min": 1e-3, "max": 2e-2}}
    tuner = {"name": "Hyperband", "arguments": {"factor": 2}}
    study = study_dict(dataset, recipe=recipe, space=space, tuner=tuner)
    result = search(study, tmp_path / "runs", verbose=0)
    promoted = [row for row in result.rows if row.get("hp.tuner/trial_id") is not None]
    assert promoted
    for row in promoted:
        history, parent = (
            read_history(result.directory / f"trial_{trial}" / "execution_0")
            for trial in (row["trial"], row["hp.tuner/trial_id"])
        )
        assert len(history) == 2 and history[: len(parent)] == parent
        assert len(parent) == 1
    assert result.recipe().schedule.epochs == 2


def test_signal_of_the_heads_as_objective(dataset, tmp_path):
    recipe = study_dict(dataset)["recipe"] | {"schedule": {"epochs": 8}}
    tuner = {"objective": "shp_readout_accuracy"}
    shp = {"enabled": True, "max_images": 32, "patience": 1, "monitor": "readout_accuracy"}
    study = study_dict(dataset, recipe=recipe, tuner=tuner, shp=shp)
    result = search(study, tmp_path / "runs", verbose=0)
    for row in result.rows:
        history = read_history(result.directory / f"trial_{row['trial']}" / "execution_0")
        last = history[-1]
        # A trial ends with the first epoch that is no better than the one before.
        values = [epoch["shp/block_1_readout_accuracy"] for epoch in history]
        assert all(
            later > earlier for earlier, later in zip(values[:-1], values[1:-1], strict=False)
        )
        assert len(values) == 8 or values[-1] <= max(values[:-1])
        assert row["score"] == last["shp/block_1_readout_accuracy"]
        assert row["shp_snr"] == last["shp/block_1_snr"]


@pytest.mark.backend_free
def test_a_custom_oracle(dataset, tmp_path):
    import keras_tuner

    hp = keras_tuner.HyperParameters()
    hp.Fixed("num_heads", 4)
    oracle = keras_tuner.oracles.RandomSearchOracle(
        keras_tuner.Objective("val_accuracy", "max"), 1, hyperparameters=hp
    )
    result = search(study_dict(dataset), tmp_path / "runs", oracle=oracle, verbose=0)
    assert [row["hp.num_heads"] for row in result.rows] == [4]


@pytest.mark.backend_free
def test_bad_arguments(dataset, tmp_path):
    with pytest.raises(ValueError, match="num_points"):
        search(study_dict(dataset, tuner={"arguments": {"num_points": 3}}), tmp_path / "runs")
    (tmp_path / "file").write_text("")
    with pytest.raises(OSError, match="Cannot write to the directory .*file"):
        search(study_dict(dataset), tmp_path / "file" / "runs")
    with pytest.raises(ValueError, match="nowhere.npz"):
        search(study_dict("nowhere.npz"), tmp_path / "runs2")


@pytest.mark.backend_free
def test_workers_are_refused_in_one_line(dataset, tmp_path, monkeypatch):
    study, runs = study_dict(dataset), tmp_path / "runs"
    with pytest.raises(ValueError, match="give `workers` or `ray_address`.*trial_cores=2"):
        search(study, runs, trial_cores=2)
    with pytest.raises(ValueError, match="`workers` must be a positive int.*workers=0"):
        search(study, runs, workers=0)
    with pytest.raises(ValueError, match="or a fraction of one GPU.*trial_gpus=1.5"):
        search(study, runs, workers=2, trial_gpus=1.5)
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(ImportError, match=r'pip install "lsmha-keras\[cluster\]"'):
        search(study, runs, workers=2)
    monkeypatch.setenv("KERASTUNER_TUNER_ID", "chief")
    with pytest.raises(ValueError, match="lsmha tune --ray ADDRESS.*KERASTUNER_TUNER_ID=chief"):
        search(study, runs)
    assert not runs.exists()


@pytest.mark.backend_free
@pytest.mark.parametrize(
    "address, message",
    [
        ("10.0.0.1", "HOST:PORT, as `ray start --head` prints it"),
        ("10.0.0.1:http", "HOST:PORT, as `ray start --head` prints it"),
        ("127.0.0.1:{port}", "No Ray cluster answers at 127.0.0.1:{port}"),
        ("auto", "Could not find any running Ray instance"),
    ],
)
def test_a_cluster_that_does_not_answer(dataset, tmp_path, address, message, monkeypatch):
    pytest.importorskip("ray", reason="the extra `cluster` is not installed")
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        port = closed.getsockname()[1]  # bound, but nobody listens
        if address == "auto" and ray_runs_here():
            pytest.skip("a cluster of Ray's runs on this machine")
        with pytest.raises((ValueError, ConnectionError), match=message.format(port=port)):
            search(study_dict(dataset), tmp_path / "runs", ray_address=address.format(port=port))


def ray_runs_here():
    from ray._private.services import find_gcs_addresses

    return bool(find_gcs_addresses())


@pytest.mark.backend_free
def test_the_grid_is_kerastuners(tmp_path):
    import keras_tuner

    from lsmha_keras.studies.study_tuner import GridOracle

    def values(kind, at_once):
        hp = keras_tuner.HyperParameters()
        hp.Choice("heads", [2, 4, 8], default=4)
        hp.Fixed("width", 3)
        hp.Float("rate", 1e-3, 1e-1, sampling="log")
        hp.Boolean("gate")
        objective = keras_tuner.Objective("score", "max")
        oracle = kind(objective=objective, max_trials=100, hyperparameters=hp)
        oracle._set_project_dir(str(tmp_path), f"{kind.__name__}_{at_once}")
        oracle.verbose = 0
        found, running = [], []
        while True:
            trials = [oracle.create_trial(f"worker{number}") for number in range(at_once)]
            running = [trial for trial in trials if trial.status == "RUNNING"]
            if not running:
                return found, {trial.status for trial in trials}
            for trial in running:
                found.append(trial.hyperparameters.values)
                oracle.update_trial(trial.trial_id, {"score": 0.5})
                trial.status = "COMPLETED"
                oracle.end_trial(trial)

    whole = values(keras_tuner.oracles.GridSearchOracle, 1)
    assert len(whole[0]) >= 3 * 10 * 2 and whole[1] == {"STOPPED"}
    assert values(GridOracle, 1) == whole
    assert values(GridOracle, 3) == whole


KILLED = """
    import json, os, signal, sys
    import keras
    from lsmha_keras.studies.search import search

    class Kill(keras.callbacks.Callback):
        trainings = 0
        def on_train_begin(self, logs=None):
            Kill.trainings += 1
        def on_train_batch_begin(self, batch, logs=None):
            # In the second epoch of the second trial.
            if Kill.trainings == 2 and self.model.optimizer.iterations >= 6:
                os.kill(os.getpid(), signal.SIGKILL)

    search(json.loads(sys.argv[1]), sys.argv[2], callbacks=[Kill()], verbose=0)
"""


@pytest.mark.slow
@pytest.mark.backend_free
def test_killed_and_called_again(dataset, tmp_path, grid):
    study = study_dict(dataset, tuner={"keep": 2, "seed": 5})
    command = [sys.executable, "-c", textwrap.dedent(KILLED), json.dumps(study), tmp_path / "runs"]
    killed = subprocess.run(
        command, cwd=ROOT, env=os.environ, capture_output=True, timeout=PATIENCE
    )
    assert killed.returncode == -signal.SIGKILL, killed.stderr.decode()
    assert len(_read(tmp_path / "runs")) == 1
    assert len(read_history(tmp_path / "runs" / "trial_1" / "execution_0")) == 1

    first = tmp_path / "runs" / "trial_0" / "execution_0" / "execution.json"
    written = first.stat().st_mtime_ns
    result = search(study, tmp_path / "runs", verbose=0)
    assert first.stat().st_mtime_ns == written
    # As the study that nobody killed: the same seeds give the same accuracies.
    whole = [row["val_accuracy"] for row in grid[1].rows if row["execution"] == 0]
    assert [row["val_accuracy"] for row in result.rows] == whole


def _read(directory):
    from lsmha_keras.studies.execution_table import collect_executions

    return collect_executions(directory)
