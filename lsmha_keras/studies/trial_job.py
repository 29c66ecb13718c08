"""What a trial has to train, wherever that happens."""

import dataclasses
import json
import pathlib
import time

import keras

from lsmha_keras.files import write_atomically
from lsmha_keras.studies.hparams_log import write_hparams
from lsmha_keras.studies.run_execution import EXECUTION, run_execution
from lsmha_keras.studies.study import Study

_MEASURED = ("val_accuracy", "latency_ms", "parameters", "multiply_adds", "score")


@dataclasses.dataclass(frozen=True)
class TrialJob:
    """The trainings of a trial, which need no oracle. It can be pickled.

    Attributes:
        study: `Study`.
        trial: str, KerasTuner's number of the trial.
        values: dict of the hyperparameters, KerasTuner's own among them.
        directory: `pathlib.Path` of the trial.
        recipes: tuple of `Recipe`, one for each execution.
    """

    study: Study
    trial: str
    values: dict
    directory: pathlib.Path
    recipes: tuple

    def run(self, sources, callbacks=(), verbose=0, log=print):
        """Trains all executions, or reads the results of those that were trained before.

        Args:
            sources: dict with the "train" and "validation" data.
            callbacks: more Keras callbacks.
            verbose: as in `lsmha_keras.train`.
            log: function that is told, as a text, how each execution ended.

        Returns:
            list of dicts, the rows of the study's table. After an infeasible execution there are
            no more: only the seeds of the others differ.

        Raises:
            OSError: if the disk is full or data cannot be read.
        """
        rows = []
        for execution in range(len(self.recipes)):
            began = time.monotonic()
            rows.append(self._execute(execution, sources, callbacks, verbose))
            seconds = time.monotonic() - began
            log(f"  execution {execution}: {_outcome(rows[-1])} ({seconds:.0f} s)")
            if rows[-1]["status"] == "infeasible":
                break
        return rows

    def give_up(self, error):
        """Writes that the executions without a result failed.

        Args:
            error: str, the cause.

        Returns:
            list of dicts, the rows of the trial.
        """
        rows = []
        for execution, recipe in enumerate(self.recipes):
            path = self.directory / f"execution_{execution}" / EXECUTION
            if path.exists():
                rows.append(json.loads(path.read_text(encoding="utf-8")))
                continue
            row = {"study": self.study.name, **self._facts(execution), "seed": recipe.runtime.seed}
            rows.append(row | {"status": "failed", "score": None, "error": error})
            path.parent.mkdir(parents=True, exist_ok=True)
            write_atomically(path, json.dumps(rows[-1], indent=1))
        return rows

    def _execute(self, execution, sources, callbacks, verbose):
        directory = self.directory / f"execution_{execution}"
        row = run_execution(
            self.study,
            self.recipes[execution],
            directory,
            sources,
            self._facts(execution),
            callbacks,
            verbose,
        )
        metrics = {name: row[name] for name in _MEASURED if row.get(name) is not None}
        failed = row["status"] == "failed"
        write_hparams(directory / "tensorboard" / "hparams", self.values, metrics, failed)
        # Every model leaves functions and memory behind.
        keras.utils.clear_session(free_memory=True)
        return row

    def _facts(self, execution):
        values = {f"hp.{name}": value for name, value in self.values.items()}
        return {"trial": self.trial, "execution": execution, **values}


def _outcome(row):
    cost = f"{row['latency_ms']:.2f} ms" if row.get("latency_ms") is not None else "not measured"
    if row["status"] == "completed":
        return f"accuracy {row['val_accuracy']:.2%}, {cost}, {row['train_seconds']:.0f} s"
    if row["status"] == "infeasible":
        return f"above the budget by {-row['score']:.2f}x ({cost}), not trained"
    return f"failed: {row['error']}"
