"""Checkpoints of a run, and the error that ends one that diverges."""

import csv
import math
import pathlib
import time

import keras
import numpy as np

from lsmha_keras.errors import InputError
from lsmha_keras.text_files import write_rows
from lsmha_keras.training.training_state import load_state, save_state

LAST = "last.npz"


class EpochCheckpoint(keras.callbacks.Callback):
    """Saves the training state and the history at the end of every epoch.

    Keras's `BackupAndRestore` overwrites its only copy. Here a complete one survives a kill at any
    moment. Put this callback after those that add to the logs.

    Args:
        directory: path of the output directory, for `history.csv` and `checkpoints/`.
        progress: dict from the `checkpoints/last.npz` of an earlier call, or None.

    Attributes:
        history: list of a dict per finished epoch: "epoch" counted from 1, "learning_rate" at
            its end, and the numbers in the logs.
        train_seconds: float, seconds spent in finished epochs, over all calls.
        finished: True: `fit` returns only at the end of the run. See `StepCheckpoint`.
    """

    finished = True

    def __init__(self, directory, progress=None):
        super().__init__()
        self.directory = pathlib.Path(directory)
        progress = progress or {"history": [], "train_seconds": 0.0}
        self.history = list(progress["history"])
        self.train_seconds = progress["train_seconds"]
        self._steps = 0
        # A kill may have come after the state was saved and before the table was.
        if self.history:
            write_rows(self.directory / "history.csv", self.history)

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
            # The last update can make a weight infinite although the loss before it was finite.
            saved = self.last if self.last.exists() else None
            raise NonFiniteLossError(str(error), epoch + 1, self._steps, saved) from error
        write_rows(self.directory / "history.csv", self.history)

    def _row(self, epoch, logs):
        optimizer = getattr(self.model.optimizer, "inner_optimizer", self.model.optimizer)
        rate = float(keras.ops.convert_to_numpy(optimizer.learning_rate))
        return {
            "epoch": epoch + 1,
            "learning_rate": rate,
            # Other callbacks may add values that are not numbers.
            **{
                key: float(v)
                for key, v in logs.items()
                if np.asarray(v).shape == () and np.asarray(v).dtype.kind in "fiu"
            },
        }


def read_history(path):
    """Reads the table of a run's epochs.

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


class EpochSeed(keras.callbacks.Callback):
    """Seeds torch's global generators in every epoch; does nothing on other backends.

    On torch, Keras's dropout draws from these generators, and so does torch's data loader when
    `fit` starts. On other backends dropout draws from a `SeedGenerator`, whose state is saved.

    Args:
        seed: int.

    Example:

    ```python
    model.fit(images, labels, callbacks=[EpochSeed(1)])
    ```
    """

    def __init__(self, seed):
        super().__init__()
        self.seed = seed
        self._epoch = 0

    def on_epoch_begin(self, epoch, logs=None):
        """Remembers the epoch."""
        self._epoch = epoch

    def on_train_batch_begin(self, batch, logs=None):
        """Seeds after the data loader has started, before the first step."""
        if batch == 0 and keras.backend.backend() == "torch":
            import torch

            state = np.random.SeedSequence([self.seed, self._epoch]).generate_state(1)
            torch.manual_seed(int(state[0]))


class NonFiniteLossError(InputError):
    """Training cannot continue, because the loss or a weight is not finite.

    A `ValueError`, as a value of the recipe has to change. The last saved state stays.

    Args:
        what: str, what happened, such as "The loss became nan".
        epoch: int, the epoch, counted from 1.
        step: int, the step of the epoch, counted from 1.
        checkpoint: path of the last good state, or None if there is none.

    Example:
        >>> print(NonFiniteLossError("The loss became nan", 1, 17))
        The loss became nan in epoch 1, step 17. No epoch was finished, so there is no saved \
state. Try a lower optimizer.learning_rate, a longer schedule.warmup_epochs, gradient clipping \
(optimizer.arguments.global_clipnorm = 1.0) or runtime.precision = "float32", with a new output \
directory.
    """

    def __init__(self, what, epoch, step, checkpoint=None):
        state = "No epoch was finished, so there is no saved state."
        if checkpoint is not None:
            state = f"The state at the end of epoch {epoch - 1} is kept in {checkpoint}."
        super().__init__(
            f"{what} in epoch {epoch}, step {step}. {state} Try a lower optimizer.learning_rate, "
            "a longer schedule.warmup_epochs, gradient clipping "
            "(optimizer.arguments.global_clipnorm = 1.0) or "
            'runtime.precision = "float32", with a new output directory.'
        )
        self.epoch = epoch
        self.step = step
        self.checkpoint = checkpoint


class StopOnNonFiniteLoss(keras.callbacks.Callback):
    """Raises `NonFiniteLossError` at the first step whose loss is not finite.

    Keras's `TerminateOnNaN` would end `fit` without an error.

    Args:
        checkpoint: path of the last saved state, for the message, or None.

    Example:

    ```python
    model.fit(images, labels, callbacks=[StopOnNonFiniteLoss()])
    ```
    """

    def __init__(self, checkpoint=None):
        super().__init__()
        self.checkpoint = checkpoint
        self._epoch = 0

    def on_epoch_begin(self, epoch, logs=None):
        """Remembers the epoch for the message."""
        self._epoch = epoch

    def on_train_batch_end(self, batch, logs=None):
        """Checks the loss."""
        loss = (logs or {}).get("loss", 0.0)
        if not math.isfinite(loss):
            saved = self.checkpoint is not None and self.checkpoint.exists()
            raise NonFiniteLossError(
                f"The loss became {loss}",
                self._epoch + 1,
                batch + 1,
                self.checkpoint if saved else None,
            )


class StepCheckpoint:
    """The state of a run on the device, which can be saved after any step.

    It is kept in the file of `EpochCheckpoint`, `checkpoints/last.npz`.

    Args:
        directory: path of the output directory.

    Attributes:
        arrays: dict for `restore_state`, or None at the beginning of a run.
        step: int, the next step.
        position: float, the corresponding step of the schedule; see `TimePlan`.
        sums: list of two floats, loss and accuracy summed over the steps of an unfinished epoch.
        history: list of a dict per epoch, as in `EpochCheckpoint`.
        train_seconds: float, seconds spent in steps, over all calls.
        finished: bool, whether the run is complete.
        save_seconds: float, duration of the last `save`.
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
                raise InputError(
                    "The run was begun with its images on the host and can only go on there: "
                    "without a limit of time and on the same kind of device. "
                    f"Received: {self.last}"
                )
            self.step, self.position = progress["step"], progress["position"]
            self.sums, self.history = progress["sums"], progress["history"]
            self.train_seconds, self.finished = progress["train_seconds"], progress["finished"]
            if self.history:  # a kill may have come after the state and before the table
                write_rows(self.directory / "history.csv", self.history)

    @property
    def last(self):
        """Path of the state to continue from."""
        return self.directory / "checkpoints" / LAST

    def save(self, model, epoch):
        """Saves the state and the history.

        Args:
            model: compiled `keras.Model` that holds the state after `step` steps.
            epoch: int, the epoch of the last step, counted from 1, for the error message.

        Raises:
            NonFiniteLossError: if a weight is not finite; the last saved state stays.
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
            write_rows(self.directory / "history.csv", self.history)
        self.saved_at = time.monotonic()
        self.save_seconds = self.saved_at - begun

    def diverged(self, what, epoch, step):
        """Returns a `NonFiniteLossError` that names the last saved state."""
        return NonFiniteLossError(what, epoch, step, self.last if self.last.exists() else None)
