"""Classifies photos, texts and series without Keras."""

from __future__ import annotations

import importlib.util
import os
import pathlib
from typing import Any, Literal

import numpy as np

from lsmha_keras import presets
from lsmha_keras._imports import import_quietly
from lsmha_keras.arguments import positive_int
from lsmha_keras.errors import InputError
from lsmha_keras.probabilities import probabilities
from lsmha_keras.runtimes.description import made_from
from lsmha_keras.runtimes.inputs import inputs_of

RUNTIMES = ("openvino", "onnxruntime", "keras")


class Predictor:
    """Classifies photos, texts or series with a trained preset, in OpenVINO, onnxruntime or Keras.

    With the `model.onnx` of a shipped preset, or a file that `lsmha_keras.export` wrote, neither
    Keras nor its backend is imported. Logits equal those of `predict` to 1e-3, of texts and series
    to 1e-4. Several threads may call a `Predictor` at once.

    Args:
        model: name or directory of a preset, a `.onnx` file, or the directory of an export in the
            format "onnx".
        runtime: "auto", "openvino", "onnxruntime" or "keras". "auto" means the first of these that
            is installed, or "keras" for presets without a `model.onnx`. Defaults to `"auto"`.
        num_threads: int or `None`, number of threads of OpenVINO and onnxruntime, shared by all
            callers. `None` means the cores that this process may use. Keras backends have their own
            settings.

    Attributes:
        class_names: list of str or `None`.
        image_shape: `(height, width, channels)` to which photos are resized; `(time,)` of texts,
            `(time, features)` of series.
        kind: str, what it takes: "images", "texts" or "series".
        name: str, of the preset or model.
        num_classes: int.
        runtime: str, "openvino", "onnxruntime" or "keras".

    Raises:
        ImportError: if the requested runtime is not installed.
        ValueError: if the preset or the runtime is unknown, or the file is damaged or was made from
            other weights than those beside it.

    Example:

    ```python
    classify = lsmha_keras.Predictor("lsmha-small")
    classify(np.zeros((427, 640, 3), "uint8"))  # [("wolf", 0.21), ...]
    ```
    """

    def __init__(
        self,
        model: Any,
        runtime: Literal["auto", "onnxruntime", "openvino", "keras"] = "auto",
        num_threads: int | None = None,
    ) -> None:
        if runtime not in ("auto", *RUNTIMES):
            raise InputError(
                f"`runtime` must be 'auto' or one of {RUNTIMES}. Received: runtime={runtime!r}"
            )
        if num_threads is not None:
            num_threads = positive_int("num_threads", num_threads)
        self._runtime = _open(model, runtime, num_threads or processors())
        self.runtime = self._runtime.name
        description = self._runtime.description
        self.class_names = description.class_names
        self.image_shape = description.image_shape
        self._inputs = inputs_of(description)
        self.kind = self._inputs.kind
        self.name = description.name
        self.num_classes = description.num_classes

    def __call__(self, images: Any, top: int = 5) -> list[Any]:
        """Returns the most likely classes of one image, text or series, or of several.

        Args:
            images: an image: path of a file, open binary file, `PIL.Image.Image` or array `(height,
                width, channels)`; or several: a list of these, or an array `(batch, height, width,
                channels)`. Images have values from 0 to 255 and any size. For a model of texts: a
                str, or a list or array of str, or ids `(batch, time)`. For one of series: an array
                `(time, features)` or `(batch, time, features)`.
            top: int, number of classes. Defaults to `5`.

        Returns:
            For one image a list of pairs `(label, probability)`, the most likely first; for several
            a list of such lists. A label is a name, or an int if there are no names.

        Raises:
            ValueError: if an image cannot be read, or has another number of channels than the
                model; a text has no word; or a series has another shape or is not finite.
        """
        rows = self.probabilities(images)
        answers = [
            [(self._label(k), float(row[k])) for k in row.argsort()[::-1][:top]] for row in rows
        ]
        return answers[0] if self._inputs.is_one(images) else answers

    def probabilities(self, images: Any) -> np.ndarray:
        """Returns the probabilities of all classes.

        Args:
            images: as for a call.

        Returns:
            `(images, classes)` float64 array.
        """
        return self.as_probabilities(self.logits(images))

    def logits(self, images: Any) -> np.ndarray:
        """Returns the outputs of `predict`: logits, or probabilities of a model with a softmax.

        Args:
            images: as for a call. Floats are rounded to 8 bits.

        Returns:
            `(images, classes)` float32 array.
        """
        chunks = [self._runtime.run(chunk) for chunk in self._inputs.chunks(images)]
        empty = np.zeros((0, self.num_classes), "float32")
        return np.concatenate(chunks) if chunks else empty

    def as_probabilities(self, outputs: Any) -> np.ndarray:
        """Converts the result of `logits` to probabilities.

        Args:
            outputs: `(images, classes)` array.

        Returns:
            `(images, classes)` float64 array.
        """
        if self.runtime == "keras":
            return self._runtime.probabilities(outputs)
        return probabilities(outputs, self._runtime.description.activation)

    def best(self, scores: np.ndarray, top: int = 5) -> list[dict[str, Any]]:
        """Describes the most likely classes of one image, as `lsmha predict --json` prints them.

        Args:
            scores: `(classes,)` array, a row of the result of `probabilities`.
            top: int, number of classes. Defaults to `5`.

        Returns:
            A list of dicts, the most likely class first: `label`, its index, `name`, or `None` if
            the classes have no names, and `score`, its probability.
        """
        names = self.class_names
        return [
            {"label": int(k), "name": names[k] if names else None, "score": float(scores[k])}
            for k in scores.argsort()[::-1][:top]
        ]

    def read(self, image: Any) -> np.ndarray:
        """Reads an image and resizes it to the model's size; or checks a text or a series.

        Args:
            image: path, open binary file, `PIL.Image.Image` or array, of any size; or a text, or a
                series.

        Returns:
            `image_shape` uint8 array; int32 ids of a text, a float32 series.

        Raises:
            ValueError: as a call.
        """
        return self._inputs.read(image)

    def _label(self, index):
        return int(index) if self.class_names is None else self.class_names[index]


def _open(model, runtime, num_threads):
    """Finds the file and the runtime of a model, and loads it."""
    file, source = find_onnx(model)
    if runtime == "auto":
        installed = [name for name in RUNTIMES[:2] if importlib.util.find_spec(name)]
        runtime = installed[0] if file is not None and installed else "keras"
    if runtime == "keras":
        if source is None:
            raise InputError(
                "Keras runs presets, not ONNX files: leave `runtime` out, or give the preset. "
                f"Received: {model}"
            )
        return import_quietly("lsmha_keras.runtimes.keras_runtime").KerasRuntime(model)
    if file is None:
        raise InputError(
            f"The preset has no {presets.ONNX}, which {runtime} needs; "
            f"`lsmha zoo onnx {model}` makes it, and `runtime='keras'` does without. "
            f"Received: {model}"
        )
    presets.verify_file(file)
    if runtime == "openvino":
        from lsmha_keras.runtimes.openvino_runtime import OpenvinoRuntime as Runtime
    else:
        from lsmha_keras.runtimes.onnx_runtime import OnnxRuntime as Runtime
    opened = Runtime(file, num_threads)
    if source is not None and opened.description.made_from != made_from(source):
        raise InputError(
            f"{file} was made from other files than those beside it; `lsmha zoo onnx {model}` "
            "makes it again, and `runtime='keras'` does without. "
            f"Received: {model}"
        )
    return opened


def find_onnx(model):
    """Finds the ONNX file that belongs to a model.

    Args:
        model: as for `Predictor`.

    Returns:
        A pair of `pathlib.Path`s: the file, or `None` if the preset has none, and the directory of
        the preset, or `None` for a file without one.

    Raises:
        ValueError: if there is no such file or preset, or it has no trained weights.

    Example:

    ```python
    find_onnx("lsmha-small")
    ```
    """
    path = pathlib.Path(model)
    if path.suffix == ".onnx":
        if not path.is_file():
            raise InputError(f"There is no such ONNX file. Received: {model}")
        return path, None
    if (path / presets.ONNX).is_file() and not (path / "config.json").is_file():
        return path / presets.ONNX, None
    source = presets.resolve_preset(model)
    if isinstance(source, dict):
        raise InputError(
            "An architecture without trained weights cannot classify; "
            f"`lsmha presets --trained` lists what can. Received: {model}"
        )
    file = source / presets.ONNX
    return (file if file.is_file() else None), source


def processors():
    """Returns how many processors this process may use: a container may give it fewer than all."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
