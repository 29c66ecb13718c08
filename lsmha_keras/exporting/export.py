"""Writes a classifier as a file for another runtime, after it has given the same answers there."""

from __future__ import annotations

import importlib
import os
import pathlib
from typing import Any, Literal

import numpy as np

from lsmha_keras import presets
from lsmha_keras.errors import InputError
from lsmha_keras.files import fill_directory, write_atomically
from lsmha_keras.runtimes.description import Description
from lsmha_keras.runtimes.made_from import made_from
from lsmha_keras.types import PathLike

# Name -> module of this package with the functions `check_packages` and `write`.
_WRITERS = {
    "onnx": "onnx_format",
    "openvino": "openvino_format",
    "litert": "keras_format",
    "tf_saved_model": "keras_format",
    "torch": "keras_format",
}
FORMATS = tuple(_WRITERS)
# Logits may differ from those of `predict` by so much.
TOLERANCE = 1e-3
DESCRIPTION = "model.json"


def export(
    model: Any,
    format: Literal["onnx", "openvino", "litert", "tf_saved_model", "torch"],
    path: PathLike,
    softmax: bool = False,
    overwrite: bool = False,
) -> pathlib.Path:
    """Exports a classifier with its preprocessing, and checks the file in its own runtime.

    The file takes what `predict` takes, uint8 images of the model's size with values from 0 to 255,
    any number of them, and gives what `predict` gives. Batch normalisation and LoRA are folded.
    Before anything appears at `path`, the file answers golden and random images, in batches of 1
    and 3, with the logits of `predict` to 1e-3.

    Args:
        model: `CCTImageClassifier`, or the name or directory of a preset.
        format: `"onnx"` (`model.onnx`, checked in onnxruntime), `"openvino"` (`model.xml` and
            `model.bin`), `"litert"` (`model.tflite`), `"tf_saved_model"` (`saved_model/`, with the
            signature `serve`), or `"torch"` (`model.pt2`, for `torch.export.load`). The last three
            are written in a process of the backend that can, whatever the current one.
        path: directory to write; it also gets `model.json`, with the class names, the size of the
            images and how to bring photos to it, and `checksums.sha256`.
        softmax: bool, whether the file gives probabilities instead of logits. Defaults to `False`.
        overwrite: bool, whether an export that is there is replaced. Defaults to `False`.

    Returns:
        The `pathlib.Path` of the directory.

    Raises:
        ImportError: if a package that the format needs is missing.
        OSError: if something cannot be written.
        ValueError: if the format is unknown or cannot hold the model, `path` holds files, or the
            file gives other answers than `predict`. Nothing is written then.

    Example:

    ```python
    lsmha_keras.export("lsmha-small", "onnx", "exported")
    ```
    """
    if format not in _WRITERS:
        raise InputError(f"`format` must be one of {FORMATS}. Received: format={format!r}")
    path = pathlib.Path(path).expanduser()
    _check_target(path, overwrite)
    writer = importlib.import_module(f"lsmha_keras.exporting.{_WRITERS[format]}")
    writer.check_packages(format)
    classifier, description = load_exportable(model, softmax)
    images = check_images(classifier.image_shape)
    expected = classifier.predict(images, verbose=0)
    if softmax:
        expected = classifier.probabilities(expected)
    # Twice the weights: some formats are made by way of another one.
    needed = 8 * classifier.count_params() + 2**20
    with fill_directory(path, needed, replace=True) as folder:
        description = writer.write(format, classifier, folder, description, images, expected)
        text = description.to_json(indent=2, ensure_ascii=False)
        write_atomically(folder / DESCRIPTION, text + "\n")
        presets.write_checksums(folder)
    return path


def load_exportable(model, softmax=False):
    """Returns a classifier that can be exported, and what its file will say about it.

    Args:
        model: as for `export`.
        softmax: as for `export`.

    Returns:
        A pair: a `CCTImageClassifier` and a `Description`.
    """
    from lsmha_keras.exporting.check_exportable import activation_of, check_exportable
    from lsmha_keras.models import load_classifier

    source = None
    if isinstance(model, (str, os.PathLike)):
        source = presets.resolve_preset(model)
        model = load_classifier(model)
    check_exportable(model)
    converter = model.preprocessor.image_converter
    activation = activation_of(model)
    if softmax and activation != "linear":
        raise InputError(
            f"The model gives probabilities already. Received: softmax=True, a {activation} at "
            "its end"
        )
    return model, Description(
        name=model.name if source is None else pathlib.Path(source).name,
        image_shape=tuple(model.image_shape),
        num_classes=model.num_classes,
        class_names=model.class_names,
        activation="softmax" if softmax else activation,
        scale=_floats(converter.scale, 1.0),
        offset=_floats(converter.offset, 0.0),
        made_from={} if source is None else made_from(source),
    )


def check_images(image_shape):
    """Returns the images that an exported file has to answer as `predict` does: 8 golden, 8 random.

    Args:
        image_shape: `(height, width, channels)`.
    """
    from lsmha_keras.training.write_preset import golden_images

    golden = golden_images(image_shape)
    random = np.random.default_rng(1).integers(0, 256, golden.shape, dtype="uint8")
    return np.concatenate([golden, random])


def largest_difference(run, images, expected):
    """Returns how far a runtime's answers are from those expected, in batches of 1 and 3.

    Args:
        run: function from images to outputs `(batch, classes)`.
        images: `(images, height, width, channels)` uint8.
        expected: `(images, classes)` array.

    Returns:
        float, infinite if an answer has another shape or is not finite.
    """
    largest = 0.0
    for size in (1, 3):
        for start in range(0, len(images), size):
            chunk = slice(start, start + size)
            outputs = np.asarray(run(images[chunk]))
            if outputs.shape != expected[chunk].shape or not np.isfinite(outputs).all():
                return float("inf")
            largest = max(largest, float(np.abs(outputs - expected[chunk]).max()))
    return largest


def refuse_difference(what, difference):
    """Raises `ValueError` if a file's answers differ by more than `TOLERANCE`."""
    if not difference <= TOLERANCE:
        raise InputError(
            f"The {what} file gives other answers than `predict`, so it is not kept: they may "
            f"differ by {TOLERANCE:g}. Received: a difference of {difference:.3g}"
        )


def _floats(value, default):
    return [float(one) for one in np.atleast_1d(default if value is None else value)]


def _check_target(path, overwrite):
    """Refuses a path that holds something, unless it is an export that may be replaced."""
    if not path.exists() or (path.is_dir() and not any(path.iterdir())):
        return
    if not (path / DESCRIPTION).is_file():
        raise InputError(
            f"The output holds files that are no export; choose a new directory. Received: {path}"
        )
    if not overwrite:
        raise InputError(
            "The output holds an export already; `overwrite=True` (`lsmha export --overwrite`) "
            f"replaces it. Received: {path}"
        )
