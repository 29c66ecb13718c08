"""Runs a peer in a process of its own."""

import multiprocessing


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


def _serve(pipe, make, arguments):
    step = make(*arguments)
    while True:
        pipe.recv()
        step()
        pipe.send(None)
