"""Steps in processes of their own, and the memory that they take; only Linux tells enough."""

import contextlib
import multiprocessing
import pathlib
import re
import sys
import types

from lsmha_keras.errors import RunError, StorageError

_MEMORY = pathlib.Path("/proc/meminfo")
_STATUS = pathlib.Path("/proc/self/status")
_RESET = pathlib.Path("/proc/self/clear_refs")
_RESET_PEAK = "5"  # proc(5): sets VmHWM to VmRSS


def lack_of_memory(gib):
    """Says why something that needs so much memory is not run.

    Args:
        gib: float, the memory it needs, in GiB.

    Returns:
        str, empty if there is enough or the system does not say.
    """
    free = _free_gib()
    return "" if gib < free else f"not run: it needs about {gib:.1f} GiB, {free:.1f} GiB are free"


def peak_mib(function):
    """Measures by how much a call raises the resident memory at its peak.

    The first of two calls, which may compile, does not count, but what it leaves behind does. Run
    it in a fresh process: memory that was freed but kept would be used again unseen.

    Args:
        function: function without arguments.

    Returns:
        float, the peak during the second call above what was resident before the first, in MiB.

    Raises:
        OSError: if the system does not let the peak be reset, as Linux does.

    Example:

    ```python
    peak_mib(lambda: bytearray(2**28))  # 256
    ```
    """
    if not _RESET.exists():
        raise StorageError(f"Peak memory is measured on Linux only. Received: no {_RESET}")
    before = _read_kib(_STATUS, "VmRSS")
    function()
    _RESET.write_text(_RESET_PEAK)
    function()
    return (_read_kib(_STATUS, "VmHWM") - before) / 1024


def peak_in_new_process(measure, arguments, limit):
    """Measures a peak in a process of its own, which is given up when it takes too long.

    Args:
        measure: function at the top level of a module; returns what `peak_mib` does.
        arguments: tuple, for `measure`; they must pickle.
        limit: float, seconds, imports included.

    Returns:
        The peak in MiB, rounded, and an empty str; or `None` and what to note.
    """
    # Spawned, not forked: threads of frameworks do not survive a fork.
    with hidden_main():
        pool = multiprocessing.get_context("spawn").Pool(1)
    with pool:
        try:
            return round(pool.apply_async(measure, arguments).get(limit), 1), ""
        except multiprocessing.TimeoutError:
            return None, f"not measured: it took more than {limit:g} s"


def _free_gib():
    return _read_kib(_MEMORY, "MemAvailable") / 2**20 if _MEMORY.exists() else float("inf")


def _read_kib(path, name):
    return int(re.search(rf"^{name}:\s+(\d+) kB", path.read_text(), re.MULTILINE)[1])


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
            raise RunError("The process of the peer ended; it printed why") from error

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
