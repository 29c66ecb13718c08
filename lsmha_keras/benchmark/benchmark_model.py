"""Measures the speed of models, beside each other and beside named peers."""

from __future__ import annotations

import contextlib
import dataclasses
import pickle
import statistics
from collections.abc import Sequence
from typing import Any

import keras
import numpy as np

from lsmha_keras.benchmark.candidates import make_candidates
from lsmha_keras.benchmark.memory import StepProcess, peak_in_new_process, peak_mib
from lsmha_keras.benchmark.timing import time_call, time_in_turn
from lsmha_keras.errors import InputError


@dataclasses.dataclass(frozen=True)
class ModelSpeed:
    """Speed and cost of inference with one model at one batch size; unknown figures are `None`.

    Attributes:
        model: str, its name.
        batch: int, images in a step.
        device: str, such as "cpu:0".
        runs: int, number of timed steps.
        p50_ms: float, median time of a step, in milliseconds.
        p90_ms: float, 90th percentile.
        p99_ms: float, 99th percentile; `None` for fewer than 100 runs.
        fastest_ms: float.
        images_per_s: float, `batch` divided by the median time.
        ratio_to_first: float, median time divided by that of the first model; below 1 is faster.
        compile_s: float, time of the first step minus the median, in seconds.
        peak_mib: float, peak memory that a step adds to a process, in MiB.
        parameters: int.
        multiply_adds: int, for one image; see `count_multiply_adds`.
        note: str, what was not measured and why.
    """

    model: str
    batch: int
    device: str
    runs: int = 0
    p50_ms: float | None = None
    p90_ms: float | None = None
    p99_ms: float | None = None
    fastest_ms: float | None = None
    images_per_s: float | None = None
    ratio_to_first: float | None = None
    compile_s: float | None = None
    peak_mib: float | None = None
    parameters: int | None = None
    multiply_adds: int | None = None
    note: str = ""

    def __str__(self):
        facts = [f"{self.model}, batch {self.batch} on {self.device}:"]
        if self.p50_ms is not None:
            facts.append(f"{self.p50_ms:.2f} ms, {self.images_per_s:.0f} images/s")
        return " ".join([*facts, *([f"({self.note})"] if self.note else [])])


CASE = ("models", "against", "fuse", "device", "batch")
FIGURES = tuple(field.name for field in dataclasses.fields(ModelSpeed) if field.name not in CASE)
PACKAGES = ("torch", "vit-pytorch", "timm")
# Single images are fast, and a 99th percentile needs many runs.
_SINGLE_RUNS, _BATCH_RUNS = 200, 20
# Seconds that the process of a memory measurement may take for imports and compiling.
_STARTING = 120
# Percentage and number of runs for each percentile: one run at least must lie beyond it.
_PERCENTILES = {"p50_ms": (50, 1), "p90_ms": (90, 10), "p99_ms": (99, 100)}


def benchmark_model(
    model: Any,
    batch_sizes: Sequence[int] = (1, 64),
    runs: int | None = None,
    against: Any = None,
    device: str | None = None,
    fuse: bool = False,
    memory: bool = True,
    limit: float = 60.0,
) -> list[ModelSpeed]:
    """Measures inference with a model: latency, throughput, memory, compile time and size.

    The model runs as `predict` runs it on the current backend, without preprocessing, on random
    images. Models and peers take turns, one step each. Peers in PyTorch have their own process, so
    that the frameworks' threads do not compete.

    Args:
        model: built Keras model that takes one tensor; or the name or directory of a preset, or
            the name of an architecture, which gets 100 classes.
        batch_sizes: list of int. Defaults to `(1, 64)`.
        runs: int, number of timed steps of each, after warm-up. Defaults to 200 for single images,
            as a 99th percentile needs many, and 20 for batches.
        against: a peer or a list of them: models and names as above; "vit_pytorch.cct", the same
            model in PyTorch; "keras_hub.vit", a vision transformer with as many tokens and blocks
            of the same widths; "timm:NAME", any model of timm. Defaults to `None`.
        device: str such as "cpu" or "gpu:0". `None` means Keras's default, and leaves a model where
            it is. Defaults to `None`.
        fuse: bool, whether to fold convolutional blocks first. Defaults to `False`.
        memory: bool, whether to measure memory (Linux and CPUs only). Each model and batch size
            takes a fresh process, which takes seconds. Defaults to `True`.
        limit: float, seconds; a model with a slower step is not timed.

    Returns:
        A list of `ModelSpeed`, one per batch size and model, `model` first.

    Raises:
        ImportError: if a peer is not installed.
        ValueError: if the device or a name is unknown, a model does not take one tensor, or a peer
            cannot have the sizes of `model`.

    Example:

    ```python
    model = lsmha_keras.CCTImageClassifier.from_preset("cct_2_3x2_h16", num_classes=10)
    single, batch = lsmha_keras.benchmark_model(model, batch_sizes=[1, 8], runs=10, memory=False)
    print(single.p50_ms, batch.images_per_s)
    ```
    """
    if not isinstance(against, (list, tuple)):
        against = [] if against is None else [against]
    with _on(device) as found:
        candidates = make_candidates([model, *against], found, fuse)
        if device is not None:
            candidates = [candidate.copy() for candidate in candidates]
        return [
            row
            for batch_size in batch_sizes
            for row in _measure(candidates, batch_size, found, runs, memory, limit)
        ]


def measure(models, against, fuse, device, batch, runs=None, limit=60.0):
    """Measures a case of the table; see `benchmark_model`.

    Args:
        models: str, names of presets and architectures, separated by ", ".
        against: str, names of peers, likewise; may be empty.
        fuse: bool.
        device: str.
        batch: int.
        runs: int or `None`.
        limit: float.

    Returns:
        A list with one dictionary for each model and peer, its keys `FIGURES`.
    """
    names = [*models.split(", "), *filter(None, against.split(", "))]
    rows = benchmark_model(names[0], [batch], runs, names[1:], device, fuse, limit=limit)
    return [{name: getattr(row, name) for name in FIGURES} for row in rows]


@contextlib.contextmanager
def _on(device):
    found = find_device(device)
    # Keras cannot make integer variables on PyTorch's "cpu:0", which calls itself "cpu".
    torch_cpu = keras.config.backend() == "torch" and found == "cpu:0"
    name = "cpu" if torch_cpu else found
    with contextlib.nullcontext() if device is None else keras.device(name):
        yield found


def _measure(candidates, batch_size, device, runs, memory, limit):
    """Measures all candidates at one batch size."""
    first_calls, seconds, left_out = _time(candidates, batch_size, runs, limit)
    rows = []
    for candidate in candidates:
        found = seconds.get(candidate.name, [])
        figures = _summarise(found, batch_size, seconds.get(candidates[0].name))
        # A peer's first call starts its process; PyTorch compiles nothing.
        if found and not candidate.own_process:
            compile_s = first_calls[candidate.name] - statistics.median(found)
            figures["compile_s"] = round(max(0, compile_s), 3)
        figures["parameters"], figures["multiply_adds"], note = candidate.count()
        notes = [left_out.get(candidate.name), note]
        if memory and found:
            figures["peak_mib"], note = _peak(candidate, batch_size, device, limit)
            notes.append(note)
        figures["note"] = "; ".join(filter(None, notes))
        rows.append(ModelSpeed(candidate.name, batch_size, device, len(found), **figures))
    return rows


def _time(candidates, batch_size, runs, limit):
    """Returns the seconds of the first calls and of the others, and why some were not timed."""
    runs = runs or (_SINGLE_RUNS if batch_size == 1 else _BATCH_RUNS)
    with contextlib.ExitStack() as stack:
        steps = {
            candidate.name: stack.enter_context(StepProcess(_make_step, candidate, batch_size))
            if candidate.own_process
            else candidate.make_step(batch_size)
            for candidate in candidates
        }
        first_calls = {name: time_call(step) for name, step in steps.items()}
        return first_calls, *time_in_turn(steps, runs, limit)


def _make_step(candidate, batch_size):
    return candidate.make_step(batch_size)


def _summarise(seconds, batch_size, first):
    if not seconds:
        return {}
    median = statistics.median(seconds)
    figures = {
        name: round(1000 * float(np.percentile(seconds, percent)), 4)
        for name, (percent, needed) in _PERCENTILES.items()
        if len(seconds) >= needed
    }
    figures["fastest_ms"] = round(1000 * min(seconds), 4)
    figures["images_per_s"] = round(batch_size / median, 1)
    if first:
        figures["ratio_to_first"] = round(median / statistics.median(first), 3)
    return figures


def _peak(candidate, batch_size, device, limit):
    if device != "cpu:0":
        return None, "memory is measured on CPUs only"
    try:
        arguments = (pickle.dumps(candidate), batch_size)
        return peak_in_new_process(_peak_of, arguments, limit + _STARTING)
    except Exception as error:  # a user's class may raise anything; the times are known already
        return None, f"memory not measured: {error}"


def _peak_of(pickled, batch_size):
    candidate = pickle.loads(pickled)
    candidate.warm_up()  # starts threads and loads libraries
    step = candidate.make_step(batch_size)
    return peak_mib(step)


def list_devices():
    """Lists the devices of the current backend by Keras's names, such as "gpu:0" and "cpu:0".

    Returns:
        A list of str, Keras's default first.

    Example:

    ```python
    list_devices()  # ["cpu:0"] where there is no accelerator
    ```
    """
    backend = keras.config.backend()
    if backend == "tensorflow":
        import tensorflow as tf

        names = [device.name for device in tf.config.list_logical_devices("GPU")]
        names = [name.removeprefix("/device:").lower() for name in names]
    elif backend == "jax":
        import jax

        # Not `id`, which counts the devices of all processes.
        names = [f"{jax.default_backend()}:{i}" for i in range(jax.local_device_count())]
    else:
        import torch

        names = [f"gpu:{i}" for i in range(torch.cuda.device_count())]
    return list(dict.fromkeys([*names, "cpu:0"]))


def find_device(name=None):
    """Finds a device.

    Args:
        name: str such as "cpu" or "gpu:0", "cuda" for "gpu"; `None` is the one Keras uses.

    Returns:
        str, one of `list_devices()`.

    Raises:
        ValueError: if there is no such device; names the others.
    """
    devices = list_devices()
    if name is None:
        return devices[0]
    kind, _, number = name.lower().replace("cuda", "gpu").partition(":")
    found = f"{kind}:{number or 0}"
    if found not in devices:
        raise InputError(
            f"`device` must be one that the {keras.config.backend()} backend has: "
            f"{', '.join(devices)}. Received: device={name!r}"
        )
    return found
