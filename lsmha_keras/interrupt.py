"""Signals that end a command, even if a library drops their exception."""

import contextlib
import signal
import threading

_unanswered: list[int] = []


@contextlib.contextmanager
def signals_interrupt():
    """Makes SIGTERM, which schedulers send, end a command like Ctrl-C.

    The first signal raises `KeyboardInterrupt(number)`; a second one ends the process at once. In
    threads other than the main one nothing changes.

    Example:

    ```python
    with signals_interrupt():
        train("recipe.toml", output_dir="runs/mine")
    ```
    """
    if threading.current_thread() is not threading.main_thread():
        yield  # only the main thread may set handlers
        return
    numbers = (signal.SIGINT, signal.SIGTERM)

    def interrupt(number, frame):
        # Cleaning up may hang: the next signal ends the process at once.
        for each in numbers:
            signal.signal(each, signal.SIG_DFL)
        _unanswered.append(number)
        raise KeyboardInterrupt(number)

    before = {number: signal.signal(number, interrupt) for number in numbers}
    try:
        yield
    finally:
        handlers_stand = not _unanswered
        _unanswered.clear()
        if handlers_stand:
            for number, handler in before.items():
                signal.signal(number, handler)


def raise_if_interrupted():
    """Raises `KeyboardInterrupt` again if the program still runs after a signal.

    A signal raises its exception wherever the main thread happens to be. In Keras, JAX and PyTorch
    some places drop every exception (`except: pass`, destructors, callbacks of the garbage
    collector), and the work would go on. Long-running work calls this once per batch.

    Raises:
        KeyboardInterrupt: with the number of the signal.

    Example:

    ```python
    for batch in batches:
        raise_if_interrupted()
    ```
    """
    if _unanswered:
        raise KeyboardInterrupt(*_unanswered)
