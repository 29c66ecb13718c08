"""Measures a preset again and compares the figures with its card."""

import dataclasses
import functools
import os
import zipfile

import keras
import numpy as np

from lsmha_keras.benchmark import predictor_latency
from lsmha_keras.benchmark.timing import make_step, summarise, time_in_turn
from lsmha_keras.checksums import CHECKSUMS, verify_checksums
from lsmha_keras.data.open_dataset import can_open_offline
from lsmha_keras.errors import InputError
from lsmha_keras.evidence.write_card import write_card
from lsmha_keras.models import CCTClassifier
from lsmha_keras.predictor import Predictor
from lsmha_keras.presets import ONNX, resolve_preset
from lsmha_keras.text_files import read_json
from lsmha_keras.training.devices import describe_hardware
from lsmha_keras.training.evaluate import evaluate, predict_logits

GOLDEN_TOLERANCE = 1e-4
ONNX_TOLERANCE = 1e-3
ACCURACY_TOLERANCE = 0.1  # percentage points
_LATENCY_RUNS = 50
_NEEDED = (CHECKSUMS, "golden.npz", "results.json")
_COMPARED = ("dataset", "split", "num_images", "accuracy")


def verify_preset(preset, data_dir=None, accuracy=True):
    """Measures a preset again and compares the figures with its card.

    It first checks the checksums of the files, the logits of the golden images to 1e-4, and those
    of `model.onnx`, if there is one, in onnxruntime to 1e-3. If one of these fails, it stops.
    Otherwise it measures the accuracy on the data and split of the card, which must agree to 0.1
    percentage points, if the data is found (nothing is downloaded), and the latency of one image.
    Latency depends on the machine, so a different one is not a failure.

    Args:
        preset: name or directory of a trained preset.
        data_dir: folder that holds the data. Default: the environment variable LSMHA_DATA_DIR.
        accuracy: bool, whether to measure it. Defaults to `True`.

    Returns:
        A `PresetVerification`; `.ok` says whether everything that was measured agrees.

    Raises:
        ValueError: if there is no such preset, or it is an architecture.

    Example:

    ```python
    verification = verify_preset("runs/mine/preset")
    print(verification.ok, verification.accuracy, verification.notes)
    ```
    """
    directory = find_trained(preset)
    found = PresetVerification(os.fspath(preset))
    try:
        card, golden = _read(directory)
        model = _load(directory)
        difference = _golden_difference(model, golden)
    except (ValueError, OSError, KeyError, zipfile.BadZipFile) as error:
        return _refused(found, error)
    found = dataclasses.replace(
        found,
        golden_difference=difference,
        card_accuracy=card["accuracy"],
        card_latency_ms=card.get("latency_ms"),
    )
    if not difference <= GOLDEN_TOLERANCE:  # also true for NaN
        failure = f"golden logits differ by up to {difference:.3g}, more than {GOLDEN_TOLERANCE:g}"
        return _refused(found, failure)
    found = _with_onnx(found, directory, golden)
    if found.failures:
        return found
    if accuracy:
        found = _with_accuracy(found, model, card, data_dir)
    return _with_latency(found, model, card)


def find_trained(preset):
    """Finds the directory of a trained preset.

    Args:
        preset: its name or directory.

    Returns:
        A `pathlib.Path`.

    Raises:
        ValueError: if there is no such preset, or it is an architecture.
    """
    directory = resolve_preset(preset)
    if isinstance(directory, dict):
        raise InputError(
            "An architecture has no weights to verify; `lsmha presets --trained` lists what has. "
            f"Received: preset={os.fspath(preset)!r}"
        )
    return directory


def _read(directory):
    """Checks all files; returns the card's figures and the golden arrays."""
    for name in _NEEDED:
        if not (directory / name).is_file():
            raise InputError(
                f"{name} is missing; `lsmha train` writes it. Received: a preset in {directory}"
            )
    verify_checksums(directory)
    card = read_json(directory / "results.json")
    if missing := [key for key in _COMPARED if key not in card]:
        raise InputError(f"results.json must have {', '.join(missing)}. Received: {list(card)}")
    with np.load(directory / "golden.npz") as arrays:
        golden = {name: arrays[name] for name in ("images", "labels", "logits")}
    if not np.array_equal(golden["labels"], golden["logits"].argmax(axis=1)):
        raise InputError("the labels in golden.npz are not those of its logits")
    return card, golden


def _load(directory):
    return CCTClassifier.from_preset(str(directory))


def _golden_difference(model, golden):
    logits = predict_logits(model, golden["images"], len(golden["images"]))
    if logits.shape != golden["logits"].shape:
        raise InputError(
            f"the golden logits have shape {golden['logits'].shape}. Received: {logits.shape}"
        )
    return float(np.abs(logits - golden["logits"]).max())


def _with_onnx(found, directory, golden):
    """Compares the logits of `model.onnx`, if there is one, with the golden ones."""
    if not (directory / ONNX).is_file():
        return found
    try:
        logits = Predictor(directory, runtime="onnxruntime").logits(golden["images"])
    except ImportError as error:
        return _noted(found, f"{ONNX} not compared: {error}")
    except ValueError as error:
        return _refused(found, error)
    difference = float(np.abs(logits - golden["logits"]).max())
    if difference <= ONNX_TOLERANCE:
        return found
    failure = (
        f"logits of {ONNX} differ by up to {difference:.3g}, more than {ONNX_TOLERANCE:g}; "
        "`lsmha zoo onnx` makes it again"
    )
    return _refused(found, failure)


def _with_accuracy(found, model, card, data_dir):
    dataset, split = card["dataset"], card["split"]
    if not can_open_offline(dataset, data_dir):
        note = f"accuracy not measured: {dataset} is not in --data-dir or LSMHA_DATA_DIR"
        return _noted(found, note)
    try:
        figures = evaluate(model, dataset, split, data_dir)
    except ImportError as error:  # a package that reads the data is missing
        return _noted(found, f"accuracy not measured: {error}")
    except (ValueError, OSError) as error:  # damaged data, or classes that are not the model's
        return _refused(found, f"accuracy could not be measured on {dataset}: {error}")
    if figures["num_images"] != card["num_images"]:
        note = (
            f"accuracy not compared: the card's {split} split of {dataset} has "
            f"{card['num_images']:,} images, the one found here {figures['num_images']:,}"
        )
        return _noted(found, note)
    found = dataclasses.replace(found, accuracy=figures["accuracy"])
    # Rounded, so that a difference of exactly 0.1 points is accepted.
    if round(100 * abs(found.accuracy - card["accuracy"]), 9) > ACCURACY_TOLERANCE:
        failure = (
            f"accuracy is {found.accuracy:.2%}, on the card {card['accuracy']:.2%}: more than "
            f"{ACCURACY_TOLERANCE} points apart"
        )
        return _refused(found, failure)
    return found


def _with_latency(found, model, card):
    found = dataclasses.replace(found, latency_ms=_latency_ms(model))
    here = (describe_hardware(), keras.config.backend())
    there = (card.get("latency_hardware"), card.get("latency_backend"))
    if found.card_latency_ms is not None and here != there:
        note = f"latency on the card: {there[1]} on {there[0]}; here: {here[1]} on {here[0]}"
        return _noted(found, note)
    return found


def _noted(found, note):
    return dataclasses.replace(found, notes=(*found.notes, note))


def _refused(found, reason):
    # Keras's messages run over several lines.
    return dataclasses.replace(found, failures=(" ".join(str(reason).split()),))


def _latency_ms(model):
    """Times one normalised image, or what else it takes, compiled as `predict` compiles it."""
    # Ids that are no padding; images and series of ones.
    dtype = "float32" if len(model.image_shape) > 1 else "int32"
    sample = keras.ops.ones((1, *model.image_shape), dtype)
    step = make_step(model, model, xla=bool(model.jit_compile))
    seconds, _ = time_in_turn({"model": functools.partial(step, sample)}, _LATENCY_RUNS)
    return summarise(seconds.get("model", []), [])["median_ms"] or None


@dataclasses.dataclass(frozen=True)
class PresetVerification:
    """The results of measuring a preset again.

    Attributes:
        name: str, the preset.
        failures: tuple of str, reasons why it is refused; empty if everything agrees with the card.
        notes: tuple of str, what was not measured or not compared, and why.
        golden_difference: float or `None`, largest difference of a logit of the golden images.
        accuracy: float or `None`, measured now, in 0 .. 1.
        card_accuracy: float or `None`, the accuracy on the card.
        latency_ms: float or `None`, median for one image, measured now.
        card_latency_ms: float or `None`, the latency on the card.

    Example:
        >>> PresetVerification("mine", failures=("checksums.sha256 is missing",)).ok
        False
    """

    name: str
    failures: tuple = ()
    notes: tuple = ()
    golden_difference: float | None = None
    accuracy: float | None = None
    card_accuracy: float | None = None
    latency_ms: float | None = None
    card_latency_ms: float | None = None

    @property
    def ok(self):
        """Whether everything that was measured agrees with the card."""
        return not self.failures


def record_latency(verification):
    """Writes a measured latency to the card of a preset, with its machine and backend.

    If the preset has a `model.onnx`, the ways of `lsmha bench latency` are measured for one image
    and written too. `results.json`, `README.md` and the checksums are rewritten.

    Args:
        verification: `PresetVerification` from this machine and backend.

    Raises:
        ValueError: if the preset was refused, its latency was not measured, or it has no recipe.
        OSError: if its directory cannot be written to.

    Example:

    ```python
    record_latency(verify_preset("runs/mine/preset"))
    ```
    """
    if not verification.ok or verification.latency_ms is None:
        reasons = "; ".join(verification.failures) or "its latency could not be measured"
        raise InputError(
            "The latency of a preset is recorded only if the preset agrees with its card. "
            f"Received: {verification.name}: {reasons}"
        )
    directory = find_trained(verification.name)
    write_card(
        directory,
        latency_ms=round(verification.latency_ms, 3),
        latency_backend=keras.config.backend(),
        latency_hardware=describe_hardware(),
        **_latencies_ms(directory),
    )


def _latencies_ms(directory):
    """Times one image as a user classifies it: `predict`, and `Predictor` in each runtime."""
    if not (directory / ONNX).is_file():
        return {}
    rows = predictor_latency.measure(str(directory), "one image", _LATENCY_RUNS)
    return {"latencies_ms": {row["way"]: row["median_ms"] for row in rows if row["median_ms"]}}
