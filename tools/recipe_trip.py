"""Counts the modules of lsmha_keras whose code runs when `lsmha train` trains a recipe.

Run it from the root of the repository, with the arguments of `lsmha train`:

    python tools/recipe_trip.py cct_2_3x2_h16_c1_digits --epochs 1 --set schedule.warmup_epochs=0

It prints each module with its lines and calls. All modules are imported first, so that what runs at
import time, such as decorators, does not count.
"""

import collections
import importlib
import pathlib
import pkgutil
import sys
import threading
from collections.abc import Callable
from typing import Any

ROOT = pathlib.Path(__file__).resolve().parent.parent / "lsmha_keras"


def trace_modules(call: Callable[[], Any]) -> tuple[collections.Counter, int]:
    """Calls a function and records the modules of this package that it enters.

    Args:
        call: function without arguments.

    Returns:
        A counter of the calls in each module, by its path below `lsmha_keras/`, and how often the
        trip came back to a module that it had left.
    """
    calls: collections.Counter = collections.Counter()
    returns, last, prefix = 0, None, f"{ROOT}/"

    def note(frame, event, arg):
        nonlocal returns, last
        file = frame.f_code.co_filename
        if event != "call" or not file.startswith(prefix):
            return
        module = file.removeprefix(prefix)
        returns += module != last and module in calls
        calls[module] += 1
        last = module

    threading.setprofile(note)
    sys.setprofile(note)
    try:
        call()
    finally:
        sys.setprofile(None)
        threading.setprofile(None)
    return calls, returns


def main(arguments: list[str]) -> None:
    """Trains a recipe and prints the modules that it enters."""
    sys.path.insert(0, str(ROOT.parent))
    import lsmha_keras
    from lsmha_keras import cli
    from lsmha_keras._imports import import_quietly
    from lsmha_keras.commands import train

    import_quietly("keras")
    for module in pkgutil.walk_packages(lsmha_keras.__path__, "lsmha_keras."):
        try:
            importlib.import_module(module.name)
        except ImportError as error:  # an optional package is missing: the recipe cannot need it
            print(f"{module.name} left out: {error}")
    arguments = cli.build_parser().parse_args(["train", *arguments])
    calls, returns = trace_modules(lambda: train.run(arguments))
    lines = {module: len((ROOT / module).read_text().splitlines()) for module in calls}
    for module in sorted(calls):
        print(f"{lines[module]:5} lines {calls[module]:7} calls  {module}")
    print(f"{len(calls)} modules of {sum(lines.values())} lines, {returns} returns")


if __name__ == "__main__":
    main(sys.argv[1:])
