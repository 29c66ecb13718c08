"""Exports a classifier to a file for another runtime, after checking its answers there."""

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
from lsmha_keras.runtimes.description import Description, describe_inputs, made_from
from lsmha_keras.types import PathLike

# Format -> module of this package with the functions `check_packages` and `write`.
_WRITERS = {
    "onnx": "onnx_format",
    "openvino": "openvino_format",
    "litert": "keras_format",
    "tf_saved_model": "keras_format",
    "torch": "keras_format",
}
FORMATS = tuple(_WRITERS)
# Largest difference from the logits of `predict`: of images, and of texts and series.
TOLERANCE = 1e-3
SEQUENCE_TOLERANCE = 1e-4
DESCRIPTION = "model.json"
PRECISIONS = ("float32", "int8")
_WITH_INT8 = ("onnx", "openvino")
# Not OpenVINO: it computes in float32, which rounds the sums of Pillow's integers. Logits of photos
# were off by 2.5e-3.
_WITH_ANY_SIZE = ("onnx",)
# What can hold texts and series: the others are written by Keras, which has no masks there.
_WITH_SEQUENCES = ("onnx", "openvino")


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

    The file takes what `predict` takes, batches of any size of uint8 images of the model's size,
    and returns what `predict` returns. Batch normalisation and LoRA are folded. Nothing appears at
    `path` before the file has given the logits of `predict`, to 1e-3, for golden and random images
    in batches of 1 and 3.

    Files of texts take ids, int32 `(batch, time)`, as the preprocessor makes them: the vocabulary
    is in `model.json`, and `Predictor` splits texts. Files of series take float32 `(batch, time,
    features)`. Their masks are inside, and with padding `time` may be any length up to the model's.
    They give the logits of `predict` to 1e-4.

    Args:
        model: `CCTImageClassifier`, `CCTTextClassifier` or `CCTSequenceClassifier`, or the name or
            directory of a preset.
        format: `"onnx"` (`model.onnx`, checked in onnxruntime), `"openvino"` (`model.xml` and
            `model.bin`), `"litert"` (`model.tflite`), `"tf_saved_model"` (`saved_model/`, with the
            signature `serve`), or `"torch"` (`model.pt2`, for `torch.export.load`). The last three
            are written by a process on the backend they need, whatever the current backend.
        path: directory to write. It also gets `model.json`, with the class names, the size of the
            images and how to resize photos to it, and `checksums.sha256`.
        softmax: bool, whether the file returns probabilities instead of logits. Defaults to
            `False`.
        overwrite: bool, whether to replace an existing export. Defaults to `False`.
        any_size: bool, whether the file takes images of any size and resizes them as `predict`
            does, to the same 8-bit values. Format "onnx" only. Defaults to `False`.
        precision: `"float32"`, or `"int8"` for integer convolutions and dense layers, in the
            formats "onnx" and "openvino". Defaults to `"float32"`.
        calibration: dataset for int8, as for `lsmha_keras.open_dataset`. The ranges of activations
            are measured on 512 images of its train split. The accuracy on 2,000 images of its test
            split may fall by at most 0.5 points.
        data_dir: folder that holds the dataset, or `None`.

    Returns:
        The `pathlib.Path` of the directory.

    Raises:
        ImportError: if a package that the format needs is missing.
        OSError: if something cannot be written.
        ValueError: if the format is unknown or cannot represent the model, `path` holds files, the
            answers differ from those of `predict`, or the accuracy in int8 falls too far. Nothing
            is written then.

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
    if len(classifier.image_shape) != 3:
        _check_sequence_options(classifier, format, any_size, precision)
    if any_size:
        description = dataclasses.replace(
            description, any_size=True, resize=f"inside: {description.resize}"
        )
    answers = expected_answers(classifier, softmax, any_size)
    if calibration is not None:
        from lsmha_keras.exporting.int8 import Calibration

        calibration = Calibration.of(classifier, calibration, data_dir)
    # Twice the weights, as some formats are converted from another one.
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
            f"Only the format {' or '.join(_WITH_ANY_SIZE)} can resize photos; for others leave "
            "`any_size` (`--any-size`) out and resize photos to the model's size yourself. "
            f"Received: format={format!r}"
        )
    if precision not in PRECISIONS:
        raise InputError(
            f"`precision` must be one of {PRECISIONS}. Received: precision={precision!r}"
        )
    if precision == "int8" and format not in _WITH_INT8:
        raise InputError(f"Only the formats {_WITH_INT8} support int8. Received: format={format!r}")
    if (precision == "int8") != (calibration is not None):
        raise InputError(
            'precision="int8" and `calibration`, a dataset (`--calibration`), go together. '
            f"Received: precision={precision!r}, calibration={calibration!r}"
        )


def _check_sequence_options(classifier, format, any_size, precision):
    """Refuses what is for images."""
    received = f"Received: {type(classifier).__name__}"
    if format not in _WITH_SEQUENCES:
        raise InputError(
            f"Texts and series are exported in the formats {_WITH_SEQUENCES}. "
            f"{received} with format={format!r}"
        )
    if any_size or precision != "float32":
        raise InputError(
            "`any_size` and int8 are for images: leave them out for texts and series. "
            f"{received} with any_size={any_size}, precision={precision!r}"
        )


def expected_answers(classifier, softmax=False, any_size=False):
    """Returns images for the check of an exported file, and the answers it must give.

    Args:
        classifier: `CCTImageClassifier`.
        softmax: bool, whether the file returns probabilities.
        any_size: bool, whether the file takes images of other sizes, too.

    Returns:
        A list of pairs: images `(images, height, width, channels)`, uint8, or ids or series, and
        the outputs `(images, classes)` of `predict`.
    """
    groups = [check_inputs(classifier)]
    if len(classifier.image_shape) != 3:
        return _sequence_answers(classifier, groups[0], softmax)
    height, width, channels = classifier.image_shape
    if any_size:
        # Cropped in either direction, shrunk and enlarged, and a crop that ends at one pixel.
        sizes = [(2 * height + 3, 3 * width), (3 * height, width + 5), (height // 2, width), (1, 9)]
        rng = np.random.default_rng(2)
        shapes = [(4, max(rows, 1), columns, channels) for rows, columns in sizes]
        groups += [rng.integers(0, 256, shape, dtype="uint8") for shape in shapes]
    answers = []
    for images in groups:
        outputs = classifier.predict(images, verbose=0)
        answers.append((images, classifier.probabilities(outputs) if softmax else outputs))
    return answers


def _sequence_answers(classifier, inputs, softmax):
    """Returns sequences of the model's length and, if it knows padding, shorter ones."""

    def outputs(values):
        found = classifier.predict(values, verbose=0)
        return classifier.probabilities(found) if softmax else found

    answers = [(inputs, outputs(inputs))]
    backbone = classifier.backbone
    if backbone.has_padding:
        padding = 0 if backbone.mask_value is None else backbone.mask_value
        for length in {1, backbone.sequence_length // 2} - {0}:
            shorter = inputs.copy()
            shorter[:, length:] = padding
            answers.append((shorter[:, :length], outputs(shorter)))
    return answers


def load_exportable(model, softmax=False):
    """Loads the classifier to export, and describes it.

    Args:
        model: as for `export`.
        softmax: as for `export`.

    Returns:
        A pair: a `CCTImageClassifier` and a `Description`.

    Raises:
        ValueError: if the preset is unknown, the model cannot be exported, or `softmax` is set
            although it returns probabilities already.
    """
    from lsmha_keras.exporting.flat_model import activation_of, check_exportable
    from lsmha_keras.models import load_classifier

    source = None
    if isinstance(model, (str, os.PathLike)):
        source = presets.resolve_preset(model)
        model = load_classifier(model)
    check_exportable(model)
    activation = activation_of(model)
    if softmax and activation != "linear":
        raise InputError(
            "The model returns probabilities already. "
            f"Received: softmax=True, activation={activation!r}"
        )
    converter = getattr(model.preprocessor, "image_converter", None)
    of_images = len(model.image_shape) == 3
    return model, Description(
        name=model.name if source is None else pathlib.Path(source).name,
        num_classes=model.num_classes,
        class_names=model.class_names,
        activation="softmax" if softmax else activation,
        scale=_floats(converter.scale, 1.0) if of_images else [],
        offset=_floats(converter.offset, 0.0) if of_images else [],
        made_from={} if source is None else made_from(source),
        any_length=not of_images and model.backbone.has_padding,
        **describe_inputs(model),
    )


def check_inputs(classifier):
    """Returns the inputs for the check of an exported file: 8 golden ones, and 8 of noise.

    Args:
        classifier: `CCTImageClassifier` or one of its subclasses.

    Returns:
        `(16, height, width, channels)` uint8, ids `(8, time)`, or series `(8, time, features)`.
    """
    from lsmha_keras.training.run_output import golden_inputs

    golden = golden_inputs(classifier)
    if golden.dtype != np.uint8:
        return golden
    random = np.random.default_rng(1).integers(0, 256, golden.shape, dtype="uint8")
    return np.concatenate([golden, random])


def largest_difference(run, answers):
    """Returns the largest error of a runtime's answers, in batches of 1 and 3.

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


def tolerance_of(classifier):
    """Returns by how much the answers of a classifier's file may differ from its own, a float."""
    return TOLERANCE if len(classifier.image_shape) == 3 else SEQUENCE_TOLERANCE


def refuse_difference(what, difference, tolerance=TOLERANCE):
    """Raises `ValueError` if a file's answers differ by more than `tolerance`."""
    if not difference <= tolerance:
        raise InputError(
            f"The answers of the {what} file must equal those of `predict` to {tolerance:g}, so it "
            f"is not kept. Received: a difference of {difference:.3g}"
        )


def _floats(value, default):
    return [float(one) for one in np.atleast_1d(default if value is None else value)]


def _check_target(path, overwrite):
    """Refuses a path that holds something, unless it is an export that may be replaced."""
    if not path.exists() or (path.is_dir() and not any(path.iterdir())):
        return
    if not (path / DESCRIPTION).is_file():
        raise InputError(
            "The output holds files that are not an export; choose a new directory. "
            f"Received: {path}"
        )
    if not overwrite:
        raise InputError(
            "The output holds an export already; replace it with `overwrite=True` "
            f"(`lsmha export --overwrite`). Received: {path}"
        )
