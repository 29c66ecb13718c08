"""OpenVINO's format, converted from ONNX and checked in OpenVINO."""

import dataclasses

from lsmha_keras._imports import needed_package
from lsmha_keras.exporting import onnx_format
from lsmha_keras.exporting.export import largest_difference, refuse_difference, tolerance_of
from lsmha_keras.presets import ONNX
from lsmha_keras.runtimes.openvino_runtime import OpenvinoRuntime


def check_packages(format="onnx"):
    """Raises `ImportError` if a package that the format needs is missing."""
    onnx_format.check_packages()
    needed_package("openvino")


def write(format, classifier, folder, description, answers, calibration=None):
    """Writes `model.xml` and `model.bin`; as `onnx_format.write`."""
    import openvino

    description = onnx_format.write(format, classifier, folder, description, answers, calibration)
    model = openvino.Core().read_model(str(folder / ONNX))
    # Keep the precision of weights that the ONNX file was found to need.
    openvino.save_model(model, folder / "model.xml", compress_to_fp16=False)
    (folder / ONNX).unlink()
    runtime = OpenvinoRuntime(folder / "model.xml", num_threads=1)
    if calibration is not None:
        # OpenVINO computes int8 in its own way, so its accuracy is measured, too.
        return dataclasses.replace(description, calibration=calibration.report(runtime.run))
    difference = largest_difference(runtime.run, answers)
    refuse_difference("OpenVINO", difference, tolerance_of(classifier))
    return description
