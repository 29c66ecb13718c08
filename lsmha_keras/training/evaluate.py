"""Evaluates a classifier on labelled images: overall, per class, and its calibration."""

from __future__ import annotations

import dataclasses
import os
import warnings
from typing import Any

import keras
import numpy as np

from lsmha_keras.arguments import positive_int
from lsmha_keras.data.labelled import class_labels, labelled_batches
from lsmha_keras.data.open_dataset import model_image_size, open_dataset_for_model
from lsmha_keras.errors import InputError
from lsmha_keras.models import load_classifier
from lsmha_keras.sample_checks import warn_of_fractions
from lsmha_keras.text_files import write_rows
from lsmha_keras.types import Dataset, PathLike

NUM_BINS = 15
# What samples of a rank are: texts are ids.
_KINDS = {1: "texts", 2: "series", 3: "images"}
# Images per call of `predict`: enough to make its start-up negligible.
_CHUNK_BYTES = 64 * 2**20


def evaluate(
    model_or_name: Any,
    dataset: Dataset,
    split: str = "test",
    data_dir: PathLike | None = None,
    batch_size: int = 256,
) -> dict[str, float]:
    """Measures loss and accuracy of a classifier.

    Args:
        model_or_name: a classifier or committee that gives logits (or a softmax), or a preset's
            name or directory.
        dataset: a dataset's name, as `lsmha_keras.open_dataset` takes it, an `ImageDataset`, a
            `tf.data.Dataset`, a `keras.utils.PyDataset`, a pair of arrays `(images, labels)`, or
            any other iterable of batches of both, such as a generator or a `DataLoader` of torch or
            Grain. Images have values in 0 .. 255; labels are integers or one-hot.
        split: str, the split of a dataset given by name.
        data_dir: folder that holds a dataset given by name.
        batch_size: int, images per step.

    Returns:
        A dict: `loss`, the mean cross-entropy without label smoothing, in nats; `accuracy` and
        `top5_accuracy`, in 0 .. 1; `num_images`. With 5 classes or fewer, `top5_accuracy` is 1.

    Raises:
        ValueError: if the dataset is empty or unknown, a label is not one of the model's classes,
            or the images have an unexpected rank, number of channels or range.

    Example:

    ```python
    figures = evaluate("runs/mine/preset", "pictures.npz", split="test")
    print(f"{figures['accuracy']:.2%}")
    ```
    """
    batch_size = positive_int("batch_size", batch_size)
    if isinstance(dataset, (str, os.PathLike)):
        # Before the model is loaded, so that a mistyped name fails at once.
        dataset = open_dataset_for_model(
            dataset, split, data_dir, None, lambda: model_image_size(model_or_name)
        )
    model = model_or_name
    if isinstance(model, (str, os.PathLike)):
        model = load_classifier(model)
    total = np.zeros(4)
    for images, labels in checked_chunks(model, dataset, batch_size):
        total += score_sums(predict_logits(model, images, batch_size), labels)
    return mean_figures(total)


def checked_chunks(model, dataset, batch_size):
    """Iterates over labelled images in large chunks, and checks that they fit a classifier.

    Args:
        model: classifier.
        dataset: as for `evaluate`, but not a name.
        batch_size: int, used for datasets that do not come in batches already.

    Yields:
        Pairs of `(images, height, width, channels)` images and `(images,)` int64 labels.

    Raises:
        ValueError: as `evaluate`.
    """
    num_classes, seen, channels = model.output_shape[-1], 0, _channels(model)
    warned = False
    _check_classes(dataset, model, num_classes)
    for images, labels in _chunks(labelled_batches(dataset, batch_size)):
        _check_kind(model, images)
        if images.ndim == 4:  # texts and series are checked by `predict`
            _check_images(images, channels)
        # A model with `preprocess_samples` warns by itself.
        if not hasattr(model, "preprocess_samples") and not warned:
            warned = warn_of_fractions(images, stacklevel=3)
        yield images, class_labels(labels, num_classes, seen)
        seen += len(images)
    if not seen:
        raise InputError("The dataset holds no images. Received: 0 images")


def mean_figures(sums):
    """Turns the sums of `score_sums` into the dict that `evaluate` returns."""
    loss, accuracy, top5 = (float(value) for value in sums[:3] / sums[3])
    return {"loss": loss, "accuracy": accuracy, "top5_accuracy": top5, "num_images": int(sums[3])}


def predict_logits(model, images, batch_size):
    """Computes a classifier's logits for an array of images.

    Args:
        model: classifier.
        images: `(images, height, width, channels)` array.
        batch_size: int.

    Returns:
        `(images, classes)` float32 array of logits.

    Raises:
        ValueError: if the model's activation is neither linear nor a softmax.
    """
    padded = full_batches(images, batch_size)
    outputs = model.predict(padded, batch_size=batch_size, verbose=0)[: len(images)]
    outputs = np.asarray(outputs).astype("float32")
    activation = keras.activations.get(getattr(model, "activation", None)).__name__
    if activation == "softmax":
        return np.log(np.maximum(outputs, np.finfo("float32").tiny))
    if activation != "linear":
        raise InputError(
            f"The model must give logits or a softmax. Received: activation={activation}"
        )
    return outputs


def score_sums(logits, labels):
    """Sums cross-entropy, correct answers and correct top-5 answers over images, and counts these.

    Args:
        logits: `(images, classes)` array.
        labels: `(images,)` ints.

    Returns:
        `(4,)` float64 array: the three sums and the number of images.
    """
    logits = logits.astype("float64")
    own = logits[np.arange(len(labels)), labels]
    top = logits.max(axis=1)
    loss = top + np.log(np.exp(logits - top[:, None]).sum(axis=1)) - own
    # The lower label wins a tie, as in `argmax`.
    ahead = (logits > own[:, None]).sum(axis=1)
    ties = np.arange(logits.shape[1])[None, :] < labels[:, None]
    ahead += ((logits == own[:, None]) & ties).sum(axis=1)
    return np.array([loss.sum(), (ahead < 1).sum(), (ahead < 5).sum(), len(labels)])


def full_batches(images, batch_size):
    """Repeats the last image until the last batch is full."""
    # A smaller batch would be compiled again on jax, and could not be split evenly over devices.
    missing = -len(images) % batch_size
    return np.concatenate([images, np.repeat(images[-1:], missing, axis=0)])


def _chunks(batches):
    """Joins batches into chunks that are worth a call of `predict`."""
    images, labels, size = [], [], 0
    for batch_images, batch_labels in batches:
        if images and batch_images.shape[1:] != images[0].shape[1:]:
            yield np.concatenate(images), np.concatenate(labels)
            images, labels, size = [], [], 0
        images.append(batch_images)
        labels.append(batch_labels)
        size += batch_images.nbytes
        if size >= _CHUNK_BYTES:
            yield np.concatenate(images), np.concatenate(labels)
            images, labels, size = [], [], 0
    if images and sum(map(len, images)):
        yield np.concatenate(images), np.concatenate(labels)


def _check_classes(dataset, model, num_classes):
    names = getattr(dataset, "class_names", None)
    if names is None:
        return
    if len(names) != num_classes:
        raise InputError(
            f"The model has {num_classes} classes, so the dataset must have as many. "
            f"Received: a dataset with {len(names)} classes"
        )
    own = getattr(model, "class_names", None) or names
    if different := [(a, b) for a, b in zip(own, names, strict=True) if a != b]:
        warnings.warn(
            f"{len(different)} class names of model and dataset differ, the first one "
            f"{different[0][0]!r} against {different[0][1]!r}; labels are compared by number.",
            stacklevel=4,
        )


def _check_kind(model, samples):
    """Refuses series for a model of images, and so on: their shapes could fit by chance."""
    # Any object with `predict` will do, and not each of them tells its shape.
    shape = getattr(model, "image_shape", None) or getattr(model, "input_shape", ())[1:]
    given = "texts" if samples.dtype.kind in "OUS" else _KINDS.get(samples.ndim - 1)
    wanted = _KINDS.get(len(shape))
    if given and wanted and given != wanted:
        raise InputError(
            f"The model takes {wanted}. Received: {given}, an array of {samples.dtype} and shape "
            f"{samples.shape}"
        )


def _check_images(images, channels):
    if channels is not None and images.shape[-1] != channels:
        raise InputError(
            f"The model takes images with {channels} channels. "
            f"Received: images of shape {images.shape}"
        )
    if images.dtype == np.uint8:
        return
    low, high = images.min(), images.max()
    if not (low >= 0 and high <= 255):  # also true for nan
        raise InputError(
            f"Images must have values in 0 .. 255. Received: values from {low:g} to {high:g}"
        )


def _channels(model):
    shape = getattr(model, "image_shape", None)
    return shape[-1] if shape else None


@dataclasses.dataclass(frozen=True)
class ClassReport:
    """The evaluation of a classifier, overall, per class and per bin of confidence.

    Attributes:
        figures: dict as `lsmha_keras.evaluate` returns it, with `ece`, the expected calibration
            error in 0 .. 1, and `confidence`, the mean of the largest probability.
        per_class: list of a dict per class: `label`, `name`, `images`, `accuracy` (fraction of the
            class's images that are classified correctly), `precision` (fraction of the images
            assigned to the class that belong to it), `most_confused_with` (the wrong class most
            often assigned to its images).
        calibration: list of a dict per bin: `lowest` and `highest` confidence, `images`, mean
            `confidence`, `accuracy`. The last two are empty for an empty bin.
    """

    figures: dict
    per_class: list
    calibration: list

    def write(self, directory):
        """Writes `per_class.csv` and `calibration.csv` into a directory."""
        write_rows(directory / "per_class.csv", self.per_class)
        write_rows(directory / "calibration.csv", self.calibration)


def class_report(model, dataset, batch_size=256):
    """Evaluates a classifier as `evaluate` does, and per class, in one pass.

    The expected calibration error is the mean over images of `|accuracy - confidence|` of the
    image's bin, with 15 bins of equal width.

    Args:
        model: a classifier that gives logits or a softmax.
        dataset: as for `lsmha_keras.evaluate`, but not a name.
        batch_size: int, images per step.

    Returns:
        A `ClassReport`.

    Raises:
        ValueError: as `lsmha_keras.evaluate`.

    Example:

    ```python
    images, labels = np.zeros((4, 32, 32, 3), "uint8"), [0, 1, 2, 3]
    report = class_report(result.model, (images, labels))
    print(report.figures["ece"], report.per_class[0]["accuracy"])
    ```

    References:
        - [Guo et al., 2017](https://arxiv.org/abs/1706.04599), section 2
    """
    sums, labels, predicted, confidences = np.zeros(4), [], [], []
    for images, own in checked_chunks(model, dataset, batch_size):
        logits = predict_logits(model, images, batch_size).astype("float64")
        sums += score_sums(logits, own)
        labels.append(own)
        predicted.append(logits.argmax(axis=1))
        shifted = logits - logits.max(axis=1, keepdims=True)
        confidences.append(1 / np.exp(shifted).sum(axis=1))  # of the largest logit
    labels, predicted, confidences = map(np.concatenate, (labels, predicted, confidences))
    bins = _calibration(confidences, labels == predicted)
    gaps = [
        abs(row["accuracy"] - row["confidence"]) * row["images"] for row in bins if row["images"]
    ]
    figures = mean_figures(sums)
    figures |= {"ece": float(sum(gaps) / len(labels)), "confidence": float(confidences.mean())}
    num_classes = model.output_shape[-1]
    names = getattr(model, "class_names", None) or [str(label) for label in range(num_classes)]
    per_class = _per_class(labels, predicted, names)
    shares = [row["accuracy"] for row in per_class if row["images"]]
    figures["macro_accuracy"] = sum(shares) / len(shares)
    return ClassReport(_rounded(figures, 6), per_class, bins)


def _per_class(labels, predicted, names):
    counts = np.zeros((len(names), len(names)), "int64")
    np.add.at(counts, (labels, predicted), 1)  # row: label, column: answer
    rows = []
    for label, name in enumerate(names):
        right, wrong = counts[label, label], counts[label].copy()
        wrong[label] = 0
        rows.append(
            {
                "label": label,
                "name": name,
                "images": int(counts[label].sum()),
                "accuracy": _share(right, counts[label].sum()),
                "precision": _share(right, counts[:, label].sum()),
                "most_confused_with": names[wrong.argmax()] if wrong.any() else "",
            }
        )
    return rows


def _calibration(confidences, right):
    # Bins are open below and closed above, as in Guo et al.
    number = np.clip(np.ceil(confidences * NUM_BINS).astype("int64") - 1, 0, NUM_BINS - 1)
    rows = []
    for i in range(NUM_BINS):
        inside = number == i
        images = int(inside.sum())
        rows.append(
            {
                "lowest": round(i / NUM_BINS, 4),
                "highest": round((i + 1) / NUM_BINS, 4),
                "images": images,
                "confidence": _share(confidences[inside].sum(), images),
                "accuracy": _share(right[inside].sum(), images),
            }
        )
    return rows


def _share(part, whole):
    return round(float(part / whole), 6) if whole else ""


def _rounded(figures, digits):
    own = ("ece", "confidence", "macro_accuracy")  # the others must equal what `evaluate` returns
    return {key: round(value, digits) if key in own else value for key, value in figures.items()}
