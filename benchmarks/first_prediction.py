"""Measures the time from the start of a process to the first prediction of a preset.

`python -m benchmarks.first_prediction --output first_prediction.csv` runs `from_preset`
and the same model built by hand with its weights loaded, each in new processes, in turn.
"""

import argparse
import os
import pathlib
import subprocess
import sys
import time

from lsmha_keras.benchmark.results_table import ResultsTable
from lsmha_keras.benchmark.timing import summarise
from lsmha_keras.errors import RunError
from lsmha_keras.presets import resolve_preset

CASE = ("preset",)
FIGURES = ("way", "median_ms", "fastest_ms", "slowest_ms", "ratio_to_ours", "runs")

_OURS = """
import sys
import numpy as np
import lsmha_keras

classifier = lsmha_keras.CCTImageClassifier.from_preset(sys.argv[1])
classifier.predict(np.zeros((1, *classifier.image_shape), "uint8"), verbose=0)
"""
_BY_HAND = """
import json, pathlib, sys
import keras_hub
import numpy as np
from lsmha_keras.models import (
    CCTBackbone, CCTImageClassifier, CCTImageClassifierPreprocessor, CCTImageConverter
)

preset = pathlib.Path(sys.argv[1])
config = json.loads((preset / "config.json").read_text())["config"]
backbone = CCTBackbone.from_config(config)
converter = CCTImageConverter.for_images(backbone.image_shape)
classifier = CCTImageClassifier(backbone, 100, CCTImageClassifierPreprocessor(converter))
backbone.load_weights(preset / "model.weights.h5")
classifier.load_task_weights(str(preset / "task.weights.h5"))
classifier.predict(np.zeros((1, *backbone.image_shape), "uint8"), verbose=0)
"""
_WAYS = {"from_preset": _OURS, "built by hand, load_weights": _BY_HAND}


def measure(preset, runs=7):
    """Times both ways in turn, on the backend that KERAS_BACKEND names.

    Args:
        preset: name or directory of a preset with 100 classes.
        runs: int, number of timed processes of each, after a warm-up.

    Returns:
        A list of two dictionaries, their keys `FIGURES`; `from_preset` is the first.

    Raises:
        RuntimeError: if a process fails; holds its error output.

    Example:

    ```python
    ours, by_hand = measure("cct_2_3x2_h16_cifar100", runs=3)
    ```
    """
    directory = str(resolve_preset(preset))
    seconds = {way: [] for way in _WAYS}
    for run in range(runs + 1):
        for way, code in _WAYS.items():
            elapsed = _time_process(code, directory)
            if run:
                seconds[way].append(elapsed)
    ours = seconds["from_preset"]
    return [{"way": way, **summarise(found, ours)} for way, found in seconds.items()]


def _time_process(code, directory):
    root = pathlib.Path(__file__).parents[2]
    paths = [str(root), *filter(None, [os.environ.get("PYTHONPATH")])]
    start = time.perf_counter()
    done = subprocess.run(
        [sys.executable, "-c", code, directory],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(paths)},
        capture_output=True,
        text=True,
    )
    elapsed = time.perf_counter() - start
    if done.returncode:
        raise RunError(f"The process that is timed failed:\n{done.stderr[-2000:]}")
    return elapsed


def main(arguments=None):
    """Runs the benchmark from the command line.

    Args:
        arguments: list of str; `None` takes the process's.
    """
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--preset", default="cct_2_3x2_h16_cifar100")
    parser.add_argument("--runs", type=int, default=7)
    parser.add_argument("--output", default="first_prediction.csv", help="table to write")
    given = parser.parse_args(arguments)
    rows = measure(given.preset, given.runs)
    ResultsTable(given.output, CASE, FIGURES).put({"preset": given.preset}, rows)
    for row in rows:
        spread = f"({row['fastest_ms'] / 1000:.2f} to {row['slowest_ms'] / 1000:.2f})"
        print(f"{row['median_ms'] / 1000:7.2f} s {spread:18} {row['ratio_to_ours']}x  {row['way']}")


if __name__ == "__main__":
    main()
