"""Formats that Keras exports, each in a process on the backend that it needs.

A process has one backend, so a child does the work: `python -m lsmha_keras.exporting.keras_format
FORMAT JOB FOLDER SOFTMAX`, where JOB is a folder with the model as a preset, the images for the
check, and the expected answers. The child loads the written file in its own runtime to check it.
"""

import importlib
import os
import pathlib
import subprocess
import sys
import tempfile

import numpy as np

from lsmha_keras._imports import needed_package
from lsmha_keras.errors import InputError
from lsmha_keras.exporting.export import largest_difference, refuse_difference
from lsmha_keras.exporting.flat_model import flat_model
from lsmha_keras.models import CCTClassifier

# Format -> backend that writes it.
BACKENDS = {"tf_saved_model": "tensorflow", "litert": "tensorflow", "torch": "torch"}
_PRESET, _CHECK = "preset", "check.npz"


def check_packages(format):
    """Raises `ImportError` if the backend that writes a format is missing."""
    backend = BACKENDS[format]
    if importlib.util.find_spec(backend) is None:
        needed_package(backend, extra=backend)


def write(format, classifier, folder, description, answers, calibration=None):
    """Writes a model in one of the formats of `BACKENDS`, and checks its answers.

    Args:
        format: str.
        classifier: `CCTImageClassifier`.
        folder: `pathlib.Path`.
        description: `Description`.
        answers: list of one pair, images `(images, height, width, channels)`, uint8, and the
            expected outputs `(images, classes)`.
        calibration: `None`; `export` refuses int8 for these formats.

    Returns:
        The `Description`.

    Raises:
        ValueError: if it cannot be written, or its answers differ.
    """
    softmax = description.activation == "softmax"
    with tempfile.TemporaryDirectory() as job:
        classifier.save_to_preset(os.path.join(job, _PRESET))
        ((images, expected),) = answers
        np.savez(os.path.join(job, _CHECK), images=images, expected=expected)
        module = "lsmha_keras.exporting.keras_format"
        child = subprocess.run(
            [sys.executable, "-m", module, format, job, str(folder), str(int(softmax))],
            env=_environment(BACKENDS[format]),
            capture_output=True,
            text=True,
        )
    if child.returncode:
        lines = child.stderr.strip().splitlines() or [f"exit status {child.returncode}"]
        raise InputError(
            f"The format {format} could not be written by {BACKENDS[format]}. "
            f"Received: {lines[-1].removeprefix('ValueError: ')}"
        )
    return description


def _environment(backend):
    # The child must find this package and its dependencies where this process found them.
    path = os.pathsep.join(entry for entry in sys.path if entry)
    return {**os.environ, "KERAS_BACKEND": backend, "PYTHONPATH": path}


def main(format, job, folder, softmax):
    """Writes and checks a file; runs in the child."""
    classifier = CCTClassifier.from_preset(os.path.join(job, _PRESET))
    model = flat_model(classifier, softmax == "1")
    run = _WRITERS[format](model, pathlib.Path(folder))
    with np.load(os.path.join(job, _CHECK)) as check:
        answers = [(check["images"], check["expected"])]
        refuse_difference(format, largest_difference(run, answers))


def _write_saved_model(model, folder):
    import tensorflow as tf

    path = str(folder / "saved_model")
    model.export(path, format="tf_saved_model", verbose=False)
    loaded = tf.saved_model.load(path)
    return lambda images: loaded.serve(images).numpy()


def _write_litert(model, folder):
    import tensorflow as tf

    path = str(folder / "model.tflite")
    model.export(path, format="litert", verbose=False)
    interpreter = tf.lite.Interpreter(path)

    def run(images):
        interpreter.resize_tensor_input(interpreter.get_input_details()[0]["index"], images.shape)
        interpreter.allocate_tensors()
        interpreter.set_tensor(interpreter.get_input_details()[0]["index"], images)
        interpreter.invoke()
        return interpreter.get_tensor(interpreter.get_output_details()[0]["index"])

    return run


def _write_torch(model, folder):
    import torch

    class Classifier(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.model = model

        def forward(self, images):
            return self.model(images, training=False)

    # Not one image: `torch.export` would take a batch size of 1 for a constant.
    example = torch.zeros((3, *model.input_shape[1:]), dtype=torch.uint8)
    shapes = {"images": {0: torch.export.Dim("batch", min=1, max=2**16)}}
    with torch.no_grad():
        program = torch.export.export(Classifier().eval(), (example,), dynamic_shapes=shapes)
    path = folder / "model.pt2"
    torch.export.save(program, path)
    loaded = torch.export.load(path).module()
    return lambda images: loaded(torch.from_numpy(images)).detach().numpy()


_WRITERS = {
    "tf_saved_model": _write_saved_model,
    "litert": _write_litert,
    "torch": _write_torch,
}

if __name__ == "__main__":
    main(*sys.argv[1:])
