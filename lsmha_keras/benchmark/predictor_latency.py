"""How long a user waits for an answer: `Predictor` in each runtime beside a model's own calls."""

import importlib.util
import os
import pathlib
import subprocess
import sys
import tempfile

import numpy as np

from lsmha_keras.benchmark.timing import summarise, time_in_turn
from lsmha_keras.models import load_classifier
from lsmha_keras.predictor import RUNTIMES, Predictor, find_onnx

CASE = ("preset", "what")
FIGURES = ("way", "median_ms", "fastest_ms", "slowest_ms", "ratio_to_ours", "runs", "note")
PACKAGES = ("onnxruntime", "openvino")
# What is measured -> images of a call; a cold start is a process that classifies one photo.
CALLS = {"one image": 1, "64 images": 64}
COLD = "cold start"
WHAT = (*CALLS, COLD)
# `ratio_to_ours` compares with it.
_OURS = "Predictor, onnxruntime"


def measure(preset, what, runs=20, limit=60.0):
    """Times the ways to classify uint8 images of a preset's size, in turn.

    Args:
        preset: name or directory of a trained preset.
        what: str, one of `WHAT`.
        runs: int, how often each is timed, after a first time that does not count.
        limit: float, seconds; what takes longer in that first time is not timed.

    Returns:
        A list of dictionaries, their keys `FIGURES`: "predict" and "predict_on_batch" of the model
        on the Keras backend, and `Predictor` in each runtime; for a cold start `lsmha predict` in
        each runtime, in processes of their own.

    Example:

    ```python
    rows = measure("lsmha-small", "one image", runs=5)
    ```
    """
    runtimes = [name for name in RUNTIMES if name == "keras" or importlib.util.find_spec(name)]
    if find_onnx(preset)[0] is None:
        runtimes = ["keras"]
    with tempfile.TemporaryDirectory() as folder:
        if what == COLD:
            steps = _cold_starts(preset, runtimes, pathlib.Path(folder))
        else:
            steps = _calls(preset, runtimes, CALLS[what])
        seconds, left_out = time_in_turn(steps, runs, limit)
    rows = []
    for way in steps:
        row = summarise(seconds.get(way, []), seconds.get(_OURS, []))
        rows.append({"way": way, **row, "note": left_out.get(way, "")})
    return rows


def _calls(preset, runtimes, count):
    model = load_classifier(preset)
    shape = (count, *model.image_shape)
    images = np.random.default_rng(0).integers(0, 256, shape, dtype="uint8")
    steps = {
        "predict": lambda: model.predict(images, batch_size=count, verbose=0),
        "predict_on_batch": lambda: model.predict_on_batch(images),
    }
    for runtime in runtimes:
        predictor = Predictor(preset, runtime=runtime)
        steps[f"Predictor, {runtime}"] = lambda call=predictor.logits: call(images)
    return steps


def _cold_starts(preset, runtimes, folder):
    from PIL import Image

    photo = folder / "photo.png"
    pixels = np.random.default_rng(0).integers(0, 256, (480, 640, 3), dtype="uint8")
    Image.fromarray(pixels).save(photo)
    return {
        f"Predictor, {runtime}": lambda runtime=runtime: _start(preset, runtime, photo)
        for runtime in runtimes
    }


def _start(preset, runtime, photo):
    root = pathlib.Path(__file__).parents[2]
    paths = [str(root), *filter(None, [os.environ.get("PYTHONPATH")])]
    command = ["-m", "lsmha_keras.cli", "predict", str(preset), str(photo), "--runtime", runtime]
    subprocess.run(
        [sys.executable, *command],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(paths)},
        check=True,
        capture_output=True,
    )
