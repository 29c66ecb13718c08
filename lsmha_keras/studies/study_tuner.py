"""The KerasTuner oracle and tuner of a study."""

import json
import math
import pathlib
import shutil
import statistics
import sys

import keras_tuner

from lsmha_keras.errors import InputError
from lsmha_keras.files import write_atomically
from lsmha_keras.studies.execution import EXECUTION, TrialJob
from lsmha_keras.studies.execution_table import collect_executions, write_table
from lsmha_keras.text_files import read_json
from lsmha_keras.training.checkpoint import LAST, copy_state

TABLE = "executions.csv"
# KerasTuner's own hyperparameters, set by Hyperband.
_EPOCHS, _PARENT = "tuner/epochs", "tuner/trial_id"
_BRACKET = ("hp.tuner/bracket", "hp.tuner/round")


def make_oracle(study):
    """Creates the KerasTuner oracle that proposes a study's trials.

    Args:
        study: `Study`.

    Returns:
        A `keras_tuner.Oracle`.

    Raises:
        ValueError: if the oracle does not accept `tuner.arguments`.

    Example:

    ```python
    oracle = make_oracle(study)
    ```
    """
    hyperparameters = keras_tuner.HyperParameters()
    study.space.declare(hyperparameters, study.defaults)
    section = study.tuner
    arguments = {
        "objective": keras_tuner.Objective(section.objective, "max"),
        "seed": section.seed + 1,  # KerasTuner treats 0 as no seed
        "hyperparameters": hyperparameters,
        # Failures are in the table; by default, three in a row would stop the search.
        "max_consecutive_failed_trials": sys.maxsize,
    }
    if section.name == "Hyperband":
        arguments["max_epochs"] = study.recipe.schedule.epochs
    else:
        arguments["max_trials"] = section.max_trials
    oracle = getattr(keras_tuner.oracles, f"{section.name}Oracle")
    if section.name == "GridSearch":
        oracle = GridOracle
    try:
        return oracle(**{**arguments, **section.arguments})
    except TypeError as error:
        raise InputError(
            f"[tuner] arguments must be arguments of {section.name} ({error}). "
            f"Received: tuner.arguments={section.arguments}"
        ) from error


class StudyTuner(keras_tuner.engine.base_tuner.BaseTuner):
    """Runs the trials that a KerasTuner oracle proposes.

    Every trial is the training of a recipe, with a checkpoint after every epoch. The results are in
    `<directory>/trial_<id>/execution_<n>/execution.json`. The table is always made anew from those
    files, so it is complete whenever a process was killed.

    Args:
        study: `Study`.
        sources: dict with the "train" and "validation" data.
        directory: `pathlib.Path` of the study, the same on all machines that share it.
        oracle: `keras_tuner.Oracle`, or None for the study's.
        callbacks: further Keras callbacks, as for `keras.Model.fit`.
        verbose: verbosity of the trainings, as in `lsmha_keras.train`.
        log: function of a text, called with messages.

    Example:

    ```python
    StudyTuner(study, sources, pathlib.Path("runs/heads")).search()
    ```
    """

    def __init__(self, study, sources, directory, oracle=None, callbacks=(), verbose=0, log=print):
        self.study = study
        self.sources = sources
        self.callbacks = callbacks
        self.fit_verbose = verbose
        self.log = log
        directory = pathlib.Path(directory)
        super().__init__(
            oracle=oracle if oracle is not None else make_oracle(study),
            directory=str(directory.parent),
            project_name=directory.name,
        )

    def run_trial(self, trial, **kwargs):
        """Runs all executions of a trial and returns their mean score."""
        try:
            return {self.study.tuner.objective: self._run_trial(trial)}
        except keras_tuner.errors.FailedTrialError:
            raise
        except Exception as error:
            # Not the trial's fault, such as a full disk. KerasTuner would record a failed trial.
            raise keras_tuner.errors.FatalError(f"{type(error).__name__}: {error}") from error

    def _run_trial(self, trial):
        job = self.prepare(trial)
        rows = job.run(self.sources, self.callbacks, self.fit_verbose, self.log)
        score = self.conclude(rows)
        if score is None:
            raise keras_tuner.errors.FailedTrialError(rows[-1]["error"])
        return score

    def prepare(self, trial):
        """Creates the job of a trial, and copies results or checkpoints it can reuse.

        Args:
            trial: `keras_tuner.engine.trial.Trial`.

        Returns:
            A `TrialJob`.
        """
        hp = trial.hyperparameters
        self.log(f"Trial {trial.trial_id}: {_show(hp.values)}")
        directory = pathlib.Path(self.project_dir) / f"trial_{trial.trial_id}"
        if twin := self._equal_trial(trial):
            self.log(f"  equal to trial {twin}, whose results are used")
        values = self.study.space.declare(hp, self.study.defaults)
        recipes = []
        for execution in range(self.study.tuner.executions_per_trial):
            recipe = self.study.trial_recipe(
                values,
                seed=self.study.tuner.seed + execution,
                epochs=hp.values.get(_EPOCHS),
                name=f"{self.study.name}_{trial.trial_id}",
            )
            run = directory / f"execution_{execution}"
            if twin is not None:
                self._copy_execution(twin, trial.trial_id, run)
            self._continue_parent(hp.values.get(_PARENT), run, recipe)
            recipes.append(recipe)
        return TrialJob(self.study, trial.trial_id, dict(hp.values), directory, tuple(recipes))

    def conclude(self, rows):
        """Writes the study's table after a trial.

        Args:
            rows: list of dicts from the trial's job.

        Returns:
            float, the mean score, or None if every execution failed.
        """
        write_table(collect_executions(self.project_dir), pathlib.Path(self.project_dir) / TABLE)
        scores = [row["score"] for row in rows if row["score"] is not None]
        return statistics.fmean(scores) if scores else None

    def _equal_trial(self, trial):
        """Returns another trial with the same values that has results, or None.

        KerasTuner 1.4.8 may propose a point twice: Bayesian optimisation when it has converged, any
        tuner when a study is continued with more trials.
        """
        # From the files, because the oracle does not know which trials failed.
        values = {f"hp.{name}": value for name, value in trial.hyperparameters.values.items()}
        for row in collect_executions(self.project_dir):
            own = {name: value for name, value in row.items() if name.startswith("hp.")}
            if row["trial"] != trial.trial_id and row["status"] != "failed" and own == values:
                return row["trial"]
        return None

    def _copy_execution(self, twin, trial, directory):
        """Copies the row and the recipe of an equal trial's execution, if it has finished."""
        source = pathlib.Path(self.project_dir) / f"trial_{twin}" / directory.name
        if (directory / EXECUTION).exists() or not (source / EXECUTION).exists():
            return
        row = read_json(source / EXECUTION)
        directory.mkdir(parents=True, exist_ok=True)
        if (source / "recipe.toml").exists():
            shutil.copyfile(source / "recipe.toml", directory / "recipe.toml")
        write_atomically(directory / EXECUTION, json.dumps({**row, "trial": trial}, indent=1))

    def _continue_parent(self, parent, directory, recipe):
        """Lets a Hyperband trial resume from the trial it promotes, if its checkpoint is kept."""
        if parent is None or (directory / "recipe.toml").exists():
            return
        source = pathlib.Path(self.project_dir) / f"trial_{parent}" / directory.name / "checkpoints"
        if (source / LAST).exists():
            target = directory / "checkpoints"
            target.mkdir(parents=True, exist_ok=True)
            # Early stopping may have ended the parent, but it was promoted to more epochs.
            copy_state(source / LAST, target / LAST, stopped=False)
            write_atomically(directory / "recipe.toml", recipe.to_toml())

    def on_trial_end(self, trial):
        """Ends the trial and deletes the weights of all but the best trials."""
        super().on_trial_end(trial)
        running = {other.trial_id for other in self.oracle.ongoing_trials.values()}
        prune(pathlib.Path(self.project_dir), self.study.tuner.keep, running)

    def reload(self):
        """Restores the oracle from the directory."""
        record = pathlib.Path(self.project_dir) / "oracle.json"
        if record.exists():
            # If KerasTuner 1.4.8 was killed while it proposed a trial, it has written the trial but
            # not its start: the trial would count without ever being run.
            known = read_json(record)["start_order"]
            for path in record.parent.glob("trial_*/trial.json"):
                if path.parent.name.removeprefix("trial_") not in known:
                    path.unlink()
        super().reload()

    # KerasTuner requires these two methods.
    def get_state(self):
        """Returns an empty dict: all state is in the oracle."""
        return {}

    def set_state(self, state):
        """Does nothing: all state is in the oracle."""


def prune(directory, keep, running=()):
    """Deletes the weights of finished executions of all but the best trials.

    Hyperband continues the best trials of a round, so the best of each round of each bracket are
    kept.

    Args:
        directory: `pathlib.Path` of a study.
        keep: int, number of trials to keep.
        running: set of str, unfinished trials, which are skipped.

    Returns:
        list of str, the trials whose weights are kept.

    Example:

    ```python
    prune(pathlib.Path("runs/heads"), keep=3)
    ```
    """
    scores, groups = {}, {}
    for row in collect_executions(directory):
        if row["trial"] in running:
            continue
        if row["status"] == "completed":
            scores.setdefault(row["trial"], []).append(row["score"])
        groups.setdefault(tuple(row.get(key) for key in _BRACKET), set()).add(row["trial"])
    kept = []
    for trials in groups.values():
        good = [trial for trial in sorted(trials) if trial in scores]
        good.sort(key=lambda trial: statistics.fmean(scores[trial]), reverse=True)
        kept += good[:keep]
        for trial in trials - set(good[:keep]):
            for path in directory.glob(f"trial_{trial}/execution_*/checkpoints"):
                # Without this file, the execution has not finished.
                if (path.parent / EXECUTION).exists():
                    shutil.rmtree(path, ignore_errors=True)
    return sorted(kept)


def _show(values):
    shown = {k: v for k, v in values.items() if not k.startswith("tuner/") or k == _EPOCHS}
    return ", ".join(
        f"{name.removeprefix('tuner/')} {value:.4g}"
        if isinstance(value, float)
        else f"{name.removeprefix('tuner/')} {value}"
        for name, value in shown.items()
    )


class GridOracle(keras_tuner.Oracle):
    """Proposes the points of a grid in KerasTuner's order, the last dimension fastest.

    The `GridSearchOracle` of KerasTuner 1.4.8 does not save which point each trial has, and raises
    `KeyError` after a restart. It also derives each point from the trial before it, which keeps all
    but two workers waiting. Here the trial id is the index of the point.
    """

    def populate_space(self, trial_id):
        """Returns the values of a trial, or "STOPPED" at the end of the grid.

        Args:
            trial_id: str, index of the point.

        Returns:
            dict of "status" and, if the point exists, "values".
        """
        axes = {hp.name: _values(hp) for hp in self.get_space().space}
        place = int(trial_id)
        if place >= math.prod(map(len, axes.values())):
            return {"status": "STOPPED"}
        values = {}
        for name in reversed(axes):
            place, index = divmod(place, len(axes[name]))
            values[name] = axes[name][index]
        return {"status": "RUNNING", "values": {name: values[name] for name in axes}}


def _values(hp):
    """Returns the values of a hyperparameter, the default first, as in KerasTuner's grid."""
    return [hp.default, *(value for value in hp.values if value != hp.default)]
