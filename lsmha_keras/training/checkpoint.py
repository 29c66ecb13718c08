"""The state of a run, in one file that is replaced atomically, and what saves it."""

import contextlib
import csv
import json
import pathlib
import time
import zipfile

import keras
import numpy as np

from lsmha_keras.errors import InputError
from lsmha_keras.files import write_atomically
from lsmha_keras.text_files import write_rows

_FORMAT = 1

LAST = "last.npz"


def save_state(path, model, progress):
    """Saves everything a compiled model needs to continue training.

    That is the variables of the model (weights, running statistics, states of seed generators) and
    of the optimiser (moments, step count, averaged weights).

    Args:
        path: path of the file. An existing file is replaced when the new one is complete and on
            disk: a killed process leaves either the old one or the new one.
        model: compiled `keras.Model` whose optimiser is built.
        progress: dict of JSON values: epoch, history and so on.

    Raises:
        FloatingPointError: if a variable holds a number that is not finite; nothing is written.
        OSError: if the file cannot be written; names it, and on a full disk the space needed.

    Example:

    ```python
    save_state("last.npz", model, {"epoch": 3})
    ```
    """
    arrays = {}
    for key, variable in _variables(model):
        array = keras.ops.convert_to_numpy(variable)
        if "float" in str(variable.dtype):
            # NumPy cannot save bfloat16; float32 holds its values exactly.
            array = array.astype("float64" if array.dtype == np.float64 else "float32")
            if not np.isfinite(array).all():
                raise FloatingPointError(f"{variable.path} holds values that are not finite")
        arrays[key] = array
    _write(path, progress, arrays)


def copy_state(source, target, **progress):
    """Copies a saved state for another run to continue from.

    Args:
        source: path of the file that `save_state` wrote.
        target: path of the copy.
        **progress: values that replace those in the progress.

    Raises:
        ValueError: if `source` is not a training state.

    Example:

    ```python
    copy_state("last.npz", "continued.npz", stopped=False)
    ```
    """
    found, arrays = load_state(source)
    _write(target, {**found, **progress}, arrays)


def _write(path, progress, arrays):
    header = json.dumps({"format": _FORMAT, "progress": progress})
    # Per array: NumPy's header and two entries in the zip archive.
    needed = len(header) * 4 + sum(array.nbytes + 512 for array in arrays.values()) + 1024
    write_atomically(path, lambda file: np.savez(file, header=np.array(header), **arrays), needed)


def load_state(path):
    """Reads what `save_state` wrote.

    Args:
        path: path of the file.

    Returns:
        The `progress` that `save_state` got, and a dict of arrays for `restore_state`.

    Raises:
        ValueError: if the file is not a training state.
    """
    try:
        with np.load(path, allow_pickle=False) as file:
            arrays = {key: file[key] for key in file.files}
        header = json.loads(str(arrays.pop("header")))
    except (KeyError, ValueError, EOFError, zipfile.BadZipFile) as error:
        raise InputError(
            f"{path} is not a complete training state. Remove the file to start again. "
            f"Received: {error}"
        ) from error
    if header.get("format") != _FORMAT:
        raise InputError(
            f"{path} was written by another version of lsmha_keras. "
            f"Received: format={header.get('format')}, expected {_FORMAT}"
        )
    return header["progress"], arrays


def restore_state(model, arrays):
    """Assigns the saved values to a model and its optimiser.

    Args:
        model: compiled `keras.Model` of the same architecture whose optimiser is built.
        arrays: dict of arrays from `load_state`.

    Raises:
        ValueError: if the arrays belong to another model; nothing is changed.
    """
    variables = dict(_variables(model))
    wanted = {key: tuple(variable.shape) for key, variable in variables.items()}
    found = {key: array.shape for key, array in arrays.items()}
    if wanted != found:
        key = next(k for k in [*wanted, *found] if wanted.get(k) != found.get(k))
        path = variables[key].path if key in variables else key
        raise InputError(
            f"The saved state belongs to another model: {path} has shape {wanted.get(key)} here. "
            f"Received: {found.get(key)}"
        )
    for key, variable in variables.items():
        variable.assign(arrays[key])


def _variables(model):
    # By position, as Keras numbers the default names of layers through the whole process.
    yield from ((f"model/{i}", v) for i, v in enumerate(model.variables))
    yield from ((f"optimizer/{i}", v) for i, v in enumerate(model.optimizer.variables))


@contextlib.contextmanager
def ema_weights(model):
    """Swaps the moving average of the weights into the model, and the weights back afterwards.

    Does nothing if the optimiser keeps no average.

    Args:
        model: compiled `keras.Model` whose optimiser is built.

    Yields:
        The model.

    Example:

    ```python
    with ema_weights(model):
        model.save_weights("averaged.weights.h5")
    ```
    """
    optimizer = getattr(model.optimizer, "inner_optimizer", model.optimizer)
    if not getattr(optimizer, "use_ema", False):
        yield model
        return
    # Keras's callback does this on every backend and under a distribution strategy. It is called by
    # hand, as by itself it leaves the weights swapped in `on_epoch_end`, where the state is saved.
    swap = keras.callbacks.SwapEMAWeights()
    swap.set_model(model)
    swap.on_test_begin()
    try:
        yield model
    finally:
        swap.on_test_end()


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
