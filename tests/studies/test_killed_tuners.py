"""Every tuner, killed at any moment, ends with the rows of the search that nobody killed."""

import json

import keras
import numpy as np
import pytest

from tests.studies.tiny import study_dict
from tests.training.tiny import write_dataset

keras_tuner = pytest.importorskip("keras_tuner")

from lsmha_keras.studies import execution, study_tuner  # noqa: E402
from lsmha_keras.studies.search import search  # noqa: E402
from lsmha_keras.studies.study import Study  # noqa: E402
from lsmha_keras.training.checkpoint import (  # noqa: E402
    LAST,  # noqa: E402
    load_state,
    save_state,
)

TRIALS = 4
TUNERS = {
    "GridSearch": {"max_trials": TRIALS},
    "RandomSearch": {"max_trials": TRIALS},
    "BayesianOptimization": {"max_trials": TRIALS},
    "Hyperband": {"arguments": {"factor": 2}},
}


class Killed(BaseException):
    """Passes every handler, as a signal does."""


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    return write_dataset(tmp_path_factory.mktemp("data") / "pictures.npz")


class Run:
    """Stands in for a training: its score follows from its hyperparameters."""

    def __init__(self, monkeypatch):
        self.calls, self.saved, self.kill = 0, 0, (None, None)
        monkeypatch.setattr(execution, "run_execution", self.run)
        # Nothing was trained that would have to be shown or forgotten.
        monkeypatch.setattr(execution, "write_hparams", lambda *args: None)
        monkeypatch.setattr(execution.keras.utils, "clear_session", lambda **options: None)
        ended, saved = study_tuner.StudyTuner.on_trial_end, keras_tuner.Oracle.save

        def end(tuner, trial):
            ended(tuner, trial)
            self.die("between", self.calls)

        def save(oracle, *args):
            self.saved += 1
            self.die("while proposing", self.saved)
            saved(oracle, *args)

        monkeypatch.setattr(study_tuner.StudyTuner, "on_trial_end", end)
        monkeypatch.setattr(keras_tuner.Oracle, "save", save)

    def die(self, where, number):
        if self.kill == (where, number):
            raise Killed

    def run(self, study, recipe, directory, sources, facts, callbacks=(), verbose=0):
        if (directory / "execution.json").exists():
            return json.loads((directory / "execution.json").read_text())
        self.calls += 1
        self.die("within", self.calls)
        overrides = recipe.model.overrides
        score = 1 / (1 + abs(overrides["num_heads"] - 5) + 1000 * recipe.optimizer.learning_rate)
        row = {**facts, "status": "completed", "score": score, "val_accuracy": score}
        row |= {"latency_ms": 1.0, "train_seconds": 1.0}
        directory.mkdir(parents=True, exist_ok=True)
        (directory / "execution.json").write_text(json.dumps(row))
        return row


def rows(directory):
    found = [json.loads(path.read_text()) for path in directory.glob("trial_*/*/execution.json")]
    return sorted(found, key=lambda row: row["trial"])


@pytest.mark.backend_free
@pytest.mark.parametrize("where", ["within", "between", "while proposing"])
@pytest.mark.parametrize("name", TUNERS)
def test_a_killed_search_ends_like_an_uninterrupted_one(
    name, where, dataset, tmp_path, monkeypatch
):
    space = {"num_heads": [1, 2, 4, 8], "learning_rate": [1e-3, 2e-3, 4e-3]}
    tuner = {"name": name, "seed": 3, **TUNERS[name]}
    study = study_dict(dataset, space=space, tuner=tuner)
    run = Run(monkeypatch)
    search(study, tmp_path / "whole", verbose=0)
    if name == "Hyperband":
        assert any(row.get("hp.tuner/trial_id") for row in rows(tmp_path / "whole"))
    whole, saves = rows(tmp_path / "whole"), run.saved
    assert len(whole) == run.calls > 3
    last = saves if where == "while proposing" else len(whole)
    for number in (2, 3, last):
        run.calls, run.saved, run.kill = 0, 0, (where, number)
        directory = tmp_path / f"killed_{number}"
        with pytest.raises(Killed):
            search(study, directory, verbose=0)
        run.kill = (None, None)
        search(study, directory, verbose=0)
        assert rows(directory) == whole, number


def test_a_promoted_trial_goes_on_although_its_parent_had_stopped_early(
    dataset, tmp_path, monkeypatch
):
    """Hyperband promotes it for more epochs; the parent's lost patience is not the child's."""
    Run(monkeypatch)
    study = Study.from_dict(study_dict(dataset))
    tuner = study_tuner.StudyTuner(study, {}, tmp_path / "runs")
    parent, child = (tmp_path / "runs" / f"trial_{i}" / "execution_0" for i in range(2))
    (parent / "checkpoints").mkdir(parents=True)
    model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])
    model.compile("adam", "mse")
    model.optimizer.build(model.trainable_variables)
    progress = {"epoch": 1, "history": [{"epoch": 1}], "train_seconds": 2.0, "stopped": True}
    save_state(parent / "checkpoints" / LAST, model, progress)
    tuner._continue_parent("0", child, study.recipe)
    found, arrays = load_state(child / "checkpoints" / LAST)
    assert found == {**progress, "stopped": False}
    before = load_state(parent / "checkpoints" / LAST)[1]
    assert before.keys() == arrays.keys()
    for key, array in before.items():
        np.testing.assert_array_equal(arrays[key], array)
