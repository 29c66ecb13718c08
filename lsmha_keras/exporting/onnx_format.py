"""Exports to ONNX, and writes the ONNX file of a preset."""

import dataclasses
import pathlib
import tempfile

from lsmha_keras import presets
from lsmha_keras._imports import needed_package
from lsmha_keras.exporting.export import (
    export,
    largest_difference,
    refuse_difference,
    tolerance_of,
)
from lsmha_keras.files import write_atomically
from lsmha_keras.presets import ONNX
from lsmha_keras.runtimes.description import KEY
from lsmha_keras.runtimes.onnx_runtime import OnnxRuntime


def check_packages(format="onnx"):
    """Raises `ImportError` if a package that the format needs is missing."""
    needed_package("onnx")
    needed_package("onnxruntime")


def write(format, classifier, folder, description, answers, calibration=None):
    """Writes `model.onnx` to a folder and checks its answers in onnxruntime.

    Weights are stored in float16 if the answers stay within a quarter of the tolerance, which
    leaves room for images other than the few in the check, and in float32 otherwise.

    Args:
        format: str, not used: there is one.
        classifier: `CCTImageClassifier`.
        folder: `pathlib.Path`.
        description: `Description`.
        answers: list of pairs of images `(images, height, width, channels)`, uint8, and the
            expected outputs `(images, classes)`.
        calibration: `Calibration` for a graph in int8, or `None`.

    Returns:
        The `Description` that the file holds.

    Raises:
        ValueError: if the answers differ in both precisions, or the accuracy falls too far in int8.
    """
    if calibration is not None:
        return _write_int8(classifier, folder, description, answers, calibration)
    tolerance = tolerance_of(classifier)
    for weights in ("float16", "float32"):
        description = dataclasses.replace(description, weights=weights)
        runtime = _written(_graph(classifier, description), folder)
        difference = largest_difference(runtime.run, answers)
        if difference <= tolerance / 4:
            break
    refuse_difference("ONNX", difference, tolerance)
    return description


def _write_int8(classifier, folder, description, answers, calibration):
    from lsmha_keras.exporting.int8 import quantised

    model = _graph(classifier, dataclasses.replace(description, weights="float32"))
    model = quantised(model, calibration.images)
    runtime = _written(model, folder)
    # In int8, too, answers must not depend on the size of the batch.
    own = [(images, runtime.run(images)) for images, _ in answers]
    refuse_difference("ONNX", largest_difference(runtime.run, own))
    description = dataclasses.replace(
        description, weights="int8", calibration=calibration.report(runtime.run)
    )
    set_description(model, description)
    _written(model, folder)
    return description


def _graph(classifier, description):
    from lsmha_keras.exporting.onnx_model import onnx_model

    model = onnx_model(
        classifier,
        softmax=description.activation == "softmax",
        half=description.weights == "float16",
        any_size=description.any_size,
    )
    set_description(model, description)
    return model


def set_description(model, description):
    """Makes a `Description` the metadata of an `onnx.ModelProto`."""
    import onnx

    del model.metadata_props[:]
    onnx.helper.set_model_props(model, {KEY: description.to_json()})


def _written(model, folder):
    write_atomically(folder / ONNX, model.SerializeToString())
    return OnnxRuntime(folder / ONNX, num_threads=1)


def write_preset_onnx(directory):
    """Writes a preset's `model.onnx` and updates the checksums.

    Args:
        directory: path of the preset.

    Returns:
        The `pathlib.Path` of the file.

    Raises:
        ImportError: if a package is missing.
        OSError: if it cannot be written.
        ValueError: if the preset cannot be exported; it is not changed.

    Example:

    ```python
    write_preset_onnx("runs/mine/preset")
    ```
    """
    directory = pathlib.Path(directory)
    with tempfile.TemporaryDirectory() as folder:
        made = export(directory, "onnx", pathlib.Path(folder) / "made") / presets.ONNX
        write_atomically(directory / presets.ONNX, made.read_bytes())
    presets.write_checksums(directory)
    return directory / presets.ONNX
