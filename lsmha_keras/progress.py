"""How training and measuring show their progress: a bar in a terminal, lines anywhere else."""

import sys
import time

import keras
import numpy as np

from lsmha_keras.errors import InputError
from lsmha_keras.interrupt import raise_if_interrupted

SILENT, BAR, LINES = 0, 1, 2


def progress_style(verbose):
    """Says how progress is shown.

    Args:
        verbose: `"auto"` for a bar in a terminal or a notebook and lines anywhere else; 0 for
            nothing, 1 for a bar, 2 for lines.

    Returns:
        0, 1 or 2, as `keras.Model.fit` takes it. What is printed with 2 has no control characters.

    Raises:
        ValueError: if `verbose` is something else.

    Example:
        >>> progress_style(2)
        2
    """
    if verbose == "auto":
        is_terminal = getattr(sys.stdout, "isatty", lambda: False)()
        return BAR if is_terminal or "ipykernel" in sys.modules else LINES
    if verbose not in (SILENT, BAR, LINES):
        raise InputError(f'`verbose` must be "auto", 0, 1 or 2. Received: verbose={verbose!r}')
    return int(verbose)


def fit_progress(verbose, callbacks=None):
    """Makes the arguments of `keras.Model.fit` that show one line per epoch, or a bar.

    Keras's own `verbose=2` prints two lines per epoch.

    Args:
        verbose: as for `progress_style`.
        callbacks: the callbacks of the caller, as for `keras.Model.fit`.

    Returns:
        A dict: `verbose` and `callbacks`.

    Raises:
        ValueError: if `verbose` is unknown.

    Example:

    ```python
    model.fit(images, labels, **fit_progress("auto"))
    ```
    """
    style = progress_style(verbose)
    if style != LINES or isinstance(callbacks, keras.callbacks.CallbackList):
        return {"verbose": style, "callbacks": callbacks}
    callbacks = keras.tree.flatten(callbacks) if callbacks else []
    # Last, so that it sees what the others add to the logs.
    return {"verbose": SILENT, "callbacks": [*callbacks, _EpochLines()]}


class Progress:
    """Shows how far one pass over batches is.

    Args:
        total: int, number of batches; 0 if it is not known.
        verbose: as for `progress_style`.
        title: str, what the pass is, or `None`.

    Example:

    ```python
    progress = Progress(len(batches), "auto", "Readouts, epoch 1/10")
    for images, labels in batches:
        progress.add(loss=trainer.train_on_batch(images, labels))
    progress.finish()
    ```
    """

    def __init__(self, total, verbose="auto", title=None):
        self.style = progress_style(verbose)
        self.title = title
        self._bar = keras.utils.Progbar(total or None, verbose=self.style)
        self._count = 0
        if title and self.style == BAR:
            print(title, flush=True)

    def add(self, **figures):
        """Notes that a batch is done, with its `figures`, whose means are shown."""
        raise_if_interrupted()
        self._count += 1
        self._bar.update(self._count, list(figures.items()), finalize=False)

    def finish(self, **figures):
        """Ends the bar, or prints the line, with the `figures` of the whole pass."""
        if self.title and self.style == LINES:
            print(f"{self.title}: ", end="")
        self._bar.target = self._count  # not known before where the data does not tell its length
        self._bar.update(self._count, list(figures.items()), finalize=True)


class _EpochLines(keras.callbacks.Callback):
    """Prints one line per epoch: its number, its time and the figures in the logs."""

    def on_epoch_begin(self, epoch, logs=None):
        """Starts the clock."""
        self._start = time.monotonic()

    def on_epoch_end(self, epoch, logs=None):
        """Prints."""
        seconds = time.monotonic() - self._start
        figures = [f"{k}: {v:.4g}" for k, v in (logs or {}).items() if np.ndim(v) == 0]
        words = [f"Epoch {epoch + 1}/{self.params['epochs']}", f"{seconds:.0f} s", *figures]
        print(" - ".join(words), flush=True)
