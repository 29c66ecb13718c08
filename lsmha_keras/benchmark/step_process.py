"""Runs a peer in a process of its own."""

import contextlib
import multiprocessing
import sys
import types


class StepProcess:
    """A step that runs in another process, whose threads do not meet those of this one.

    Two frameworks in one process disturb each other: their pools of threads wait for work on the
    same cores. A call costs a message there and back.

    Args:
        make: function at the top level of a module; returns the step, a function without arguments.
        *arguments: for `make`; they must pickle.

    Raises:
        RuntimeError: if the other process ends; it prints why.

    Example:

    ```python
    with StepProcess(make_step, config) as step:
        step()
    ```
    """

    def __init__(self, make, *arguments):
        # Spawned, not forked: threads of frameworks do not survive a fork.
        context = multiprocessing.get_context("spawn")
        self._pipe, theirs = context.Pipe()
        self._process = context.Process(target=_serve, args=(theirs, make, arguments), daemon=True)
        with hidden_main():
            self._process.start()
        theirs.close()  # So that its end is noticed here.

    def __call__(self):
        try:
            self._pipe.send(None)
            self._pipe.recv()
        except (EOFError, OSError) as error:
            raise RuntimeError("The process of the peer ended; it printed why") from error

    def __enter__(self):
        return self

    def __exit__(self, *error):
        self._process.terminate()
        self._process.join()


@contextlib.contextmanager
def hidden_main():
    """Keeps processes that are started inside from importing the user's script.

    They would run it again, unless it were all under `if __name__ == "__main__":`.
    """
    main = sys.modules["__main__"]
    sys.modules["__main__"] = types.ModuleType("__main__")
    try:
        yield
    finally:
        sys.modules["__main__"] = main


def _serve(pipe, make, arguments):
    step = make(*arguments)
    while True:
        pipe.recv()
        step()
        pipe.send(None)
