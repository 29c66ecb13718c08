"""Saves the state of training at the end of every epoch."""

import csv
import io
import pathlib
import time

import keras
import numpy as np

from lsmha_keras.files import write_atomically
from lsmha_keras.training.non_finite_loss_error import NonFiniteLossError
from lsmha_keras.training.training_state import save_state

LAST = "last.npz"


class EpochCheckpoint(keras.callbacks.Callback):
    """Saves the last state and the history at the end of every epoch.

    Keras's `BackupAndRestore` writes over its only copy; here a kill at any moment leaves a whole
    one. Put it after the callbacks that add to the logs.

    Args:
        directory: path of the output directory; `history.csv` and `checkpoints/` lie there.
        progress: dict that an earlier run has left in `checkpoints/last.npz`, or None.

    Attributes:
        history: list of a dict per finished epoch: "epoch" counted from 1, "learning_rate" at
            its end, and the numbers in the logs.
        train_seconds: float, time spent in finished epochs, over all runs.
        finished: True, as `fit` returns at the end of the run only; see `StepCheckpoint`.
    """

    finished = True

    def __init__(self, directory, progress=None):
        super().__init__()
        self.directory = pathlib.Path(directory)
        progress = progress or {"history": [], "train_seconds": 0.0}
        self.history = list(progress["history"])
        self.train_seconds = progress["train_seconds"]
        self._steps = 0
        # A kill may have come between the state and the table.
        if self.history:
            write_history(self.directory / "history.csv", self.history)

    @property
    def last(self):
        """Path of the state to continue from."""
        return self.directory / "checkpoints" / LAST

    def on_train_begin(self, logs=None):
        """Starts the clock."""
        self.last.parent.mkdir(parents=True, exist_ok=True)
        self._clock = time.perf_counter()

    def on_train_batch_end(self, batch, logs=None):
        """Counts steps."""
        self._steps = batch + 1

    def on_epoch_end(self, epoch, logs=None):
        """Saves."""
        now = time.perf_counter()
        self.train_seconds += now - self._clock
        self._clock = now
        self.history.append(self._row(epoch, logs or {}))
        progress = {
            "epoch": epoch + 1,
            "history": self.history,
            "train_seconds": self.train_seconds,
            "stopped": bool(self.model.stop_training),
        }
        try:
            save_state(self.last, self.model, progress)
        except FloatingPointError as error:
            # The last step's update can spoil the weights after a loss that was still finite.
            saved = self.last if self.last.exists() else None
            raise NonFiniteLossError(str(error), epoch + 1, self._steps, saved) from error
        write_history(self.directory / "history.csv", self.history)

    def _row(self, epoch, logs):
        optimizer = getattr(self.model.optimizer, "inner_optimizer", self.model.optimizer)
        rate = float(keras.ops.convert_to_numpy(optimizer.learning_rate))
        return {
            "epoch": epoch + 1,
            "learning_rate": rate,
            # Other callbacks may leave more than numbers there.
            **{
                key: float(v)
                for key, v in logs.items()
                if np.asarray(v).shape == () and np.asarray(v).dtype.kind in "fiu"
            },
        }


def read_history(path):
    """Reads what `write_history` wrote.

    Args:
        path: path of the csv file.

    Returns:
        list of dicts, one per epoch: "epoch" is an int, the others are floats.
    """
    with open(path, encoding="utf-8", newline="") as file:
        return [
            {key: int(v) if key == "epoch" else float(v) for key, v in row.items() if v != ""}
            for row in csv.DictReader(file)
        ]


def write_history(path, history):
    """Writes the history as a table.

    Args:
        path: path of the csv file.
        history: list of dicts, one per epoch.
    """
    columns = list(dict.fromkeys(key for row in history for key in row))
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, columns, lineterminator="\n")
    writer.writeheader()
    writer.writerows(history)
    write_atomically(path, text.getvalue())
