"""Times what a user waits for: `Predictor` in each runtime, beside a model's own methods."""

import contextlib
import dataclasses
import functools
import importlib.util
import os
import pathlib
import subprocess
import sys
import tempfile
from collections.abc import Callable

import keras
import numpy as np

from lsmha_keras import presets
from lsmha_keras.benchmark.cct import PEER, make_peer_step
from lsmha_keras.benchmark.memory import StepProcess
from lsmha_keras.benchmark.peers import import_vit_pytorch_cct
from lsmha_keras.benchmark.timing import summarise, time_in_turn
from lsmha_keras.exporting.export import export
from lsmha_keras.exporting.int8 import Calibration
from lsmha_keras.exporting.onnx_format import write_preset_onnx
from lsmha_keras.models import CCTImageClassifier, load_classifier
from lsmha_keras.predictor import RUNTIMES, Predictor, find_onnx

CASE: tuple[str, ...] = ("together", "what")
FIGURES: tuple[str, ...] = (
    "preset",
    "way",
    "median_ms",
    "p99_ms",
    "fastest_ms",
    "slowest_ms",
    "ratio_to_ours",
)
FIGURES += ("runs", "megabytes", "accuracy", "note")
PACKAGES = ("onnxruntime", "openvino", "vit-pytorch")
# What is measured -> images per call; a cold start is a process that classifies one photo.
CALLS = {"one image": 1, "64 images": 64}
COLD = "cold start"
WHAT = (*CALLS, COLD)
# `ratio_to_ours` is relative to this way.
_OURS = "Predictor, onnxruntime"
_CLASSES = 100
# With fewer runs there is no 99th percentile.
_P99_RUNS = 100


@dataclasses.dataclass(frozen=True, eq=False)
class _Way:
    """One way to classify images.

    Attributes:
        preset: str, name of the model.
        name: str, name of the way.
        step: function without arguments to time, or `None`.
        run: function from uint8 images to outputs, to measure its accuracy, or `None`.
        files: paths of the files that it reads.
        note: str, why it is not measured.
    """

    preset: str
    name: str
    step: Callable | None = None
    run: Callable | None = None
    files: tuple = ()
    note: str = ""


@dataclasses.dataclass(frozen=True)
class _Model:
    """A classifier, the path for `Predictor`, and images to measure the accuracy on, or `None`."""

    preset: str
    source: str
    classifier: CCTImageClassifier
    data: Calibration | None


def measure(
    together,
    what,
    runs=20,
    limit=60.0,
    runtimes=RUNTIMES,
    against=(),
    calibration=None,
    data_dir=None,
):
    """Times the ways to classify uint8 images of a preset's size; all ways and presets take turns.

    Args:
        together: str, names or directories of presets, separated by spaces; architectures get
            random weights and 100 classes.
        what: str, one of `WHAT`.
        runs: int, number of timed calls of each, after a warm-up.
        limit: float, seconds; a way whose warm-up takes longer is not timed.
        runtimes: runtimes of `Predictor` to measure, if they are installed.
        against: `("vit_pytorch.cct",)` for that peer, on normalised images and with random weights.
        calibration: dataset for `Predictor` in int8 and for the accuracies of trained presets, or
            `None`.
        data_dir: folder that holds the dataset.

    Returns:
        A list of dicts with the keys `FIGURES`: "predict" and "predict_on_batch" of the model on
        the Keras backend, `Predictor` in each runtime and precision, and the peer; for a cold
        start, processes of `lsmha predict` in each runtime. `ratio_to_ours` is relative to the
        first preset in onnxruntime; `accuracy` is in percent.

    Example:

    ```python
    rows = measure("lsmha-small", "one image", runs=5)
    ```
    """
    with contextlib.ExitStack() as stack:
        folder = pathlib.Path(stack.enter_context(tempfile.TemporaryDirectory()))
        models = [_model(name, folder, calibration, data_dir) for name in together.split()]
        ways = []
        for model in models:
            if what == COLD:
                ways += _cold_starts(model, runtimes, folder)
                continue
            images = _inputs(model.classifier, CALLS[what])
            ways += _calls(model, runtimes, images)
            if model.data:
                ways += _int8_calls(model, runtimes, images, folder, data_dir)
            if PEER in against:
                ways.append(_peer(model, images, stack))
        seconds, left_out = time_in_turn({w: w.step for w in ways if w.step}, runs, limit)
        ours = next((found for way, found in seconds.items() if way.name == _OURS), [])
        data = {model.preset: model.data for model in models if what == "one image"}
        return [
            _row(way, seconds.get(way, []), ours, left_out.get(way, ""), data.get(way.preset))
            for way in ways
        ]


def _inputs(classifier, count):
    """Returns random uint8 images; or series, or ids of texts without padding."""
    rng, shape = np.random.default_rng(0), (count, *classifier.image_shape)
    if len(shape) == 4:
        return rng.integers(0, 256, shape, dtype="uint8")
    if len(shape) == 3:
        return rng.normal(size=shape).astype("float32")
    return rng.integers(1, classifier.backbone.vocabulary_size, shape, dtype="int32")


def _row(way, seconds, ours, left_out, data):
    p99 = len(seconds) >= _P99_RUNS
    values = {
        "preset": way.preset,
        "way": way.name,
        **summarise(seconds, ours),
        "p99_ms": round(1000 * float(np.percentile(seconds, 99)), 4) if p99 else "",
        "megabytes": round(sum(file.stat().st_size for file in way.files) / 1e6, 3) or "",
        "accuracy": round(100 * data.accuracy(way.run), 2) if data and way.run else "",
        "note": way.note or left_out,
    }
    return {key: values[key] for key in FIGURES}


def _model(name, folder, calibration, data_dir):
    """Loads a preset; an architecture is saved as one with random weights first."""
    source, data = name, None
    if isinstance(presets.resolve_preset(name), dict):
        source = tempfile.mkdtemp(dir=folder)
        CCTImageClassifier.from_preset(name, num_classes=_CLASSES).save_to_preset(source)
        write_preset_onnx(source)
    classifier = load_classifier(source)
    if calibration and source == name:
        data = Calibration.of(classifier, calibration, data_dir)
    return _Model(presets.ALIASES.get(name, name), source, classifier, data)


def _usable(model, runtimes):
    """Returns the usable runtimes, with the files that each reads, and the weight files."""
    file, directory = find_onnx(model.source)
    weights = (*directory.glob("*.json"), *directory.glob("*.weights.h5"))
    found = {runtime: (file,) for runtime in runtimes if file and importlib.util.find_spec(runtime)}
    return found | ({"keras": weights} if "keras" in runtimes else {}), weights


def _calls(model, runtimes, images):
    usable, weights = _usable(model, runtimes)
    classifier = model.classifier
    runs = {
        "predict": lambda x: classifier.predict(x, batch_size=len(x), verbose=0),
        "predict_on_batch": classifier.predict_on_batch,
    }
    files = dict.fromkeys(runs, weights)
    for runtime in usable:
        name = f"Predictor, {runtime}"
        runs[name] = Predictor(model.source, runtime=runtime).logits
        files[name] = usable[runtime]
    return [
        _Way(model.preset, name, lambda run=run: run(images), run, files[name])
        for name, run in runs.items()
    ]


def _int8_calls(model, runtimes, images, folder, data_dir):
    usable, _ = _usable(model, runtimes)
    names = {f"Predictor, {runtime}, int8": runtime for runtime in usable if runtime != "keras"}
    options = {"precision": "int8", "calibration": model.data.name, "data_dir": data_dir}
    try:
        path = export(model.source, "onnx", tempfile.mkdtemp(dir=folder), **options)
    except ValueError as error:  # the accuracy falls too far
        return [_Way(model.preset, name, note=str(error)) for name in names]
    ways = []
    for name, runtime in names.items():
        run = Predictor(path, runtime=runtime).logits
        step = functools.partial(run, images)
        ways.append(_Way(model.preset, name, step, run, (path / presets.ONNX,)))
    return ways


def _peer(model, images, stack):
    """Makes vit-pytorch's CCT of the same sizes and heads, if it has such a model."""
    backbone = model.classifier.backbone
    if set(backbone.block_kinds) != {"attention"} or backbone.tokenizer_design != "plain":
        note = "not timed: it has neither conv blocks nor other tokenizers"
        return _Way(model.preset, PEER, note=note)
    import_vit_pytorch_cct()  # raises here, not in the peer's process, if it is missing
    values = model.classifier.preprocess_samples(images)
    values = np.asarray(keras.ops.convert_to_numpy(values), "float32")
    labels = np.zeros(len(images), "int64")
    process = StepProcess(make_peer_step, backbone.get_config(), "inference", values, labels)
    return _Way(model.preset, PEER, stack.enter_context(process))


def _cold_starts(model, runtimes, folder):
    from PIL import Image

    photo = folder / "photo.png"
    pixels = np.random.default_rng(0).integers(0, 256, (480, 640, 3), dtype="uint8")
    Image.fromarray(pixels).save(photo)
    usable, _ = _usable(model, runtimes)
    return [
        _Way(
            model.preset,
            f"Predictor, {runtime}",
            functools.partial(_start, model.source, runtime, photo),
            files=files,
        )
        for runtime, files in usable.items()
    ]


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
