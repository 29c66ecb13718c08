"""ONNX, checked in onnxruntime."""

import dataclasses

from lsmha_keras.exporting.export import TOLERANCE, largest_difference, refuse_difference
from lsmha_keras.files import write_atomically
from lsmha_keras.presets import ONNX
from lsmha_keras.runtimes.description import KEY
from lsmha_keras.runtimes.needed_package import needed_package
from lsmha_keras.runtimes.onnx_runtime import OnnxRuntime


def check_packages(format="onnx"):
    """Raises `ImportError` if a package that the format needs is missing."""
    needed_package("onnx")
    needed_package("onnxruntime")


def write(format, classifier, folder, description, images, expected):
    """Writes `model.onnx` into a folder, if it gives what is expected.

    Weights are stored in float16 where the answers stay within a quarter of the tolerance, as other
    images may move them further than the few that are tried, and otherwise in float32.

    Args:
        format: str, its name.
        classifier: `CCTImageClassifier`.
        folder: `pathlib.Path`.
        description: `Description`.
        images: `(images, height, width, channels)` uint8.
        expected: `(images, classes)` array.

    Returns:
        The `Description` that the file holds.

    Raises:
        ValueError: if it gives other answers in either precision.
    """
    from lsmha_keras.exporting.onnx_model import onnx_model

    for weights in ("float16", "float32"):
        description = dataclasses.replace(description, weights=weights)
        model = onnx_model(
            classifier,
            softmax=description.activation == "softmax",
            half=weights == "float16",
            metadata={KEY: description.to_json()},
        )
        write_atomically(folder / ONNX, model.SerializeToString())
        runtime = OnnxRuntime(folder / ONNX, num_threads=1)
        difference = largest_difference(runtime.run, images, expected)
        if difference <= TOLERANCE / 4:
            break
    refuse_difference("ONNX", difference)
    return description
