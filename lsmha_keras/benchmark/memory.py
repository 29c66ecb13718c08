"""Steps in separate processes, and their peak memory, which only Linux reports."""

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
    """Checks whether there is enough free memory.

    Args:
        gib: float, required memory in GiB.

    Returns:
        str, a note why the measurement was not run; empty if there is enough memory, or the system
        does not report it.
    """
    free = _free_gib()
    return "" if gib < free else f"not run: it needs about {gib:.1f} GiB, {free:.1f} GiB are free"


def peak_mib(function):
    """Measures the peak resident memory that a call adds.

    It calls the function twice. The peak of the first call, which may compile, does not count, but
    memory that it keeps does. Use a fresh process: memory that an allocator freed but kept would be
    reused unnoticed.

    Args:
        function: function without arguments.

    Returns:
        float, peak during the second call minus the resident memory before the first, in MiB.

    Raises:
        OSError: if the system is not Linux, which can reset the peak.

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
    """Measures a peak in a new process, which is ended if it takes too long.

    Args:
        measure: function at the top level of a module; returns the result of `peak_mib`.
        arguments: tuple of picklable arguments for `measure`.
        limit: float, seconds, imports included.

    Returns:
        The peak in MiB, rounded, and "", or `None` and a note why there is none.
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
    """A step that runs in another process.

    Two frameworks in one process disturb each other: their thread pools compete for the same cores.
    A call adds the time of a message to the process and one back.

    Args:
        make: function at the top level of a module; returns the step, a function without arguments.
        *arguments: picklable arguments for `make`.

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
        theirs.close()  # otherwise `recv` would not notice the end of the process

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

    A spawned process would run it again, unless it is guarded by `if __name__ == "__main__":`.
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
