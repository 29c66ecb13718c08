"""Writes a classifier as a file for another runtime, after it has given the same answers there."""

from __future__ import annotations

import dataclasses
import importlib
import itertools
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
PRECISIONS = ("float32", "int8")
_WITH_INT8 = ("onnx", "openvino")
# OpenVINO computes in float32, where sums of Pillow's integers are rounded: logits of photos were
# off by 2.5e-3.
_WITH_ANY_SIZE = ("onnx",)


def export(
    model: Any,
    format: Literal["onnx", "openvino", "litert", "tf_saved_model", "torch"],
    path: PathLike,
    softmax: bool = False,
    overwrite: bool = False,
    any_size: bool = False,
    precision: Literal["float32", "int8"] = "float32",
    calibration: Any = None,
    data_dir: PathLike | None = None,
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
        any_size: bool, whether the file takes images of any size and resizes them as `predict`
            does, to the same 8-bit values. Format "onnx" only. Defaults to `False`.
        precision: `"float32"`, or `"int8"` for convolutions and dense layers in integers, in the
            formats "onnx" and "openvino". Defaults to `"float32"`.
        calibration: dataset for int8, as `lsmha_keras.open_dataset` takes it: 512 images of its
            train split show the ranges of activations, and on 2,000 of its test split the accuracy
            may fall by 0.5 points.
        data_dir: folder that holds the dataset, or `None`.

    Returns:
        The `pathlib.Path` of the directory.

    Raises:
        ImportError: if a package that the format needs is missing.
        OSError: if something cannot be written.
        ValueError: if the format is unknown or cannot hold the model, `path` holds files, the file
            gives other answers than `predict`, or its accuracy in int8 falls too far. Nothing is
            written then.

    Example:

    ```python
    lsmha_keras.export("lsmha-small", "onnx", "exported")
    ```
    """
    if format not in _WRITERS:
        raise InputError(f"`format` must be one of {FORMATS}. Received: format={format!r}")
    _check_options(format, any_size, precision, calibration)
    path = pathlib.Path(path).expanduser()
    _check_target(path, overwrite)
    writer = importlib.import_module(f"lsmha_keras.exporting.{_WRITERS[format]}")
    writer.check_packages(format)
    classifier, description = load_exportable(model, softmax)
    if any_size:
        description = dataclasses.replace(
            description, any_size=True, resize=f"inside: {description.resize}"
        )
    answers = expected_answers(classifier, softmax, any_size)
    if calibration is not None:
        from lsmha_keras.exporting.int8 import Calibration

        calibration = Calibration.of(classifier, calibration, data_dir)
    # Twice the weights: some formats are made by way of another one.
    needed = 8 * classifier.count_params() + 2**20
    with fill_directory(path, needed, replace=True) as folder:
        description = writer.write(format, classifier, folder, description, answers, calibration)
        text = description.to_json(indent=2, ensure_ascii=False)
        write_atomically(folder / DESCRIPTION, text + "\n")
        presets.write_checksums(folder)
    return path


def _check_options(format, any_size, precision, calibration):
    if any_size and format not in _WITH_ANY_SIZE:
        raise InputError(
            f"Only the format {' or '.join(_WITH_ANY_SIZE)} holds the resize of photos; for others "
            "leave `any_size` (`--any-size`) out and bring photos to the model's size. "
            f"Received: format={format!r}"
        )
    if precision not in PRECISIONS:
        raise InputError(
            f"`precision` must be one of {PRECISIONS}. Received: precision={precision!r}"
        )
    if precision == "int8" and format not in _WITH_INT8:
        raise InputError(
            f"Only the formats {_WITH_INT8} are written in int8. Received: format={format!r}"
        )
    if (precision == "int8") != (calibration is not None):
        raise InputError(
            'precision="int8" and `calibration`, a dataset (`--calibration`), go together. '
            f"Received: precision={precision!r}, calibration={calibration!r}"
        )


def expected_answers(classifier, softmax=False, any_size=False):
    """Returns what an exported file has to give.

    Args:
        classifier: `CCTImageClassifier`.
        softmax: bool, whether it gives probabilities.
        any_size: bool, whether it takes images of other sizes, too.

    Returns:
        A list of pairs: images `(images, height, width, channels)`, uint8, and the outputs
        `(images, classes)` of `predict`.
    """
    height, width, channels = classifier.image_shape
    groups = [check_images(classifier.image_shape)]
    if any_size:
        # Cut on either side, shrunk and enlarged, to where nothing is left to cut.
        sizes = [(2 * height + 3, 3 * width), (3 * height, width + 5), (height // 2, width), (1, 9)]
        rng = np.random.default_rng(2)
        shapes = [(4, max(rows, 1), columns, channels) for rows, columns in sizes]
        groups += [rng.integers(0, 256, shape, dtype="uint8") for shape in shapes]
    answers = []
    for images in groups:
        outputs = classifier.predict(images, verbose=0)
        answers.append((images, classifier.probabilities(outputs) if softmax else outputs))
    return answers


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


def largest_difference(run, answers):
    """Returns how far a runtime's answers are from those expected, in batches of 1 and 3.

    Args:
        run: function from images to outputs `(batch, classes)`.
        answers: as `expected_answers` returns them.

    Returns:
        float, infinite if an answer has another shape or is not finite.
    """
    largest = 0.0
    for images, expected in answers:
        steps = [range(0, len(images) + size, size) for size in (1, 3)]
        for chunk in [slice(*ends) for step in steps for ends in itertools.pairwise(step)]:
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
