"""Times several functions beside each other."""

import statistics
from time import perf_counter

# In seconds. A shorter call suffers from the caches and sleeping threads that another candidate's
# call left behind, so a second call counts instead.
_SHORT = 0.2
# Seconds of calls that are enough to tell which of two is faster.
_ENOUGH = 0.05


def time_in_turn(steps, runs, limit=60.0):
    """Times functions in turn, so that other load on the machine affects all of them alike.

    Args:
        steps: dict from name to a function without arguments.
        runs: int, number of timed calls of each, after a warm-up call.
        limit: float, seconds; a function whose warm-up call takes longer is not timed.

    Returns:
        Two dicts: from name to the list of seconds, and from the names of functions that were not
        timed to the reason.

    Example:

    ```python
    seconds, left_out = time_in_turn({"sum": lambda: sum(range(10))}, runs=3)
    ```
    """
    seconds, left_out = {}, {}
    for name, step in steps.items():
        first = time_call(step)  # compiles, starts threads
        if first > limit:
            left_out[name] = f"not timed: the first step took {first:.3g} s"
        else:
            seconds[name] = []
    for _ in range(runs):
        for name, found in seconds.items():
            elapsed = time_call(steps[name])
            found.append(time_call(steps[name]) if elapsed < _SHORT else elapsed)
    return seconds, left_out


def time_call(function, *args):
    """Returns the duration of a call, in seconds."""
    start = perf_counter()
    function(*args)
    return perf_counter() - start


def fastest_of(function, *args):
    """Returns the shortest duration of a few calls, after a warm-up call, in seconds."""
    function(*args)
    seconds = []
    while len(seconds) < 2 or sum(seconds) < _ENOUGH:
        seconds.append(time_call(function, *args))
    return min(seconds)


def summarise(seconds, ours):
    """Describes the times of one candidate.

    Args:
        seconds: list of float; empty if it was not timed.
        ours: list of float, times to compare with; may be empty, too.

    Returns:
        A dict with `median_ms`, `fastest_ms`, `slowest_ms`, `ratio_to_ours` (of the medians; above
        1 is slower than ours) and `runs`; without times the first four are "".
    """
    row = dict.fromkeys(("median_ms", "fastest_ms", "slowest_ms", "ratio_to_ours"), "")
    if seconds:
        figures = {"median": statistics.median, "fastest": min, "slowest": max}
        row |= {f"{name}_ms": round(1000 * of(seconds), 4) for name, of in figures.items()}
    if seconds and ours:
        row["ratio_to_ours"] = round(statistics.median(seconds) / statistics.median(ours), 2)
    return {**row, "runs": len(seconds)}
