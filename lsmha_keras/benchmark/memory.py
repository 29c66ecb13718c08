"""Measures the memory of this process; only Linux tells enough."""

import multiprocessing
import pathlib
import re

from lsmha_keras.benchmark.step_process import hidden_main

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
        raise OSError(f"Peak memory is measured on Linux only. Received: no {_RESET}")
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
