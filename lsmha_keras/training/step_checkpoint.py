"""The state of a run that can go on at any step."""

import pathlib
import time

from lsmha_keras.training.checkpoint import LAST, NonFiniteLossError, write_history
from lsmha_keras.training.training_state import load_state, save_state


class StepCheckpoint:
    """What is kept of a run between its steps; `EpochCheckpoint` for training on the device.

    The file is the same, `checkpoints/last.npz`, with the step in it.

    Args:
        directory: path of the output directory.

    Attributes:
        arrays: what `restore_state` takes, or None at the beginning of a run.
        step: int, the step that comes next.
        position: float, the step of the schedule it stands at; see `TimePlan`.
        sums: list of two floats, loss and hits summed over the steps of an unfinished epoch.
        history: list of a dict per epoch, as in `EpochCheckpoint`.
        train_seconds: float, time spent in steps, over all runs.
        finished: bool, whether the run has come to its end.
        save_seconds: float, how long the last `save` took.
    """

    def __init__(self, directory):
        self.directory = pathlib.Path(directory)
        self.step, self.position, self.sums = 0, 0.0, [0.0, 0.0]
        self.history, self.train_seconds, self.finished = [], 0.0, False
        self.arrays = None
        self.save_seconds = 0.0
        self.saved_at = time.monotonic()
        if self.last.exists():
            progress, self.arrays = load_state(self.last)
            if progress.get("placement") != "device":
                raise ValueError(
                    "The run was begun with its images on the host and can only go on there: "
                    "without a limit of time and on the same kind of device. "
                    f"Received: {self.last}"
                )
            self.step, self.position = progress["step"], progress["position"]
            self.sums, self.history = progress["sums"], progress["history"]
            self.train_seconds, self.finished = progress["train_seconds"], progress["finished"]
            if self.history:  # a kill may have come between the state and the table
                write_history(self.directory / "history.csv", self.history)

    @property
    def last(self):
        """Path of the state to go on from."""
        return self.directory / "checkpoints" / LAST

    def save(self, model, epoch):
        """Saves the state and the history.

        Args:
            model: compiled `keras.Model` that holds the state after `step` steps.
            epoch: int, the epoch of the last step, counted from 1, for an error's message.

        Raises:
            NonFiniteLossError: if a weight is not finite; what was saved before stays.
        """
        begun = time.monotonic()
        self.last.parent.mkdir(parents=True, exist_ok=True)
        keys = ("step", "position", "sums", "history", "train_seconds", "finished")
        progress = {key: getattr(self, key) for key in keys}
        progress |= {"placement": "device", "epoch": len(self.history)}
        try:
            save_state(self.last, model, progress)
        except FloatingPointError as error:
            raise self.diverged(str(error), epoch, self.step) from error
        if self.history:
            write_history(self.directory / "history.csv", self.history)
        self.saved_at = time.monotonic()
        self.save_seconds = self.saved_at - begun

    def diverged(self, what, epoch, step):
        """Makes the error of a run that cannot go on; see `NonFiniteLossError`."""
        return NonFiniteLossError(what, epoch, step, self.last if self.last.exists() else None)
