"""Measures a classifier on labelled images."""

import os
import warnings

import keras
import numpy as np

from lsmha_keras.data.labelled import class_labels, labelled_batches
from lsmha_keras.data.open_for_model import model_image_size, open_source

# Images handed to `predict` at a time: enough to make its start-up negligible.
_CHUNK_BYTES = 64 * 2**20


def evaluate(model_or_name, dataset, split="test", data_dir=None, batch_size=256):
    """Measures loss and accuracy of a classifier.

    Args:
        model_or_name: a classifier or committee that gives logits (or a softmax), or a preset's
            name or directory.
        dataset: a dataset's name, as `lsmha_keras.open_dataset` takes it, an `ImageDataset`, a
            `tf.data.Dataset`, a `keras.utils.PyDataset`, or a pair of arrays `(images, labels)`.
            Images with values in 0 .. 255; labels are integers or one-hot.
        split: part of a dataset given by name.
        data_dir: folder that holds a dataset given by name.
        batch_size: int, images that go through the model at a time.

    Returns:
        A dict: `loss`, the mean cross-entropy without label smoothing, in nats; `accuracy` and
        `top5_accuracy`, in 0 .. 1; `num_images`. With fewer than 5 classes the top 5 are all.

    Raises:
        ValueError: if the dataset is empty or unknown, a label is not one of the model's classes,
            or the images have another rank, number of channels or range than expected.

    Example:

    ```python
    figures = evaluate("runs/mine/preset", "pictures.npz", split="test")
    print(f"{figures['accuracy']:.2%}")
    ```
    """
    if isinstance(batch_size, bool) or not isinstance(batch_size, int) or batch_size < 1:
        raise ValueError(f"`batch_size` must be a positive int. Received: batch_size={batch_size}")
    if isinstance(dataset, (str, os.PathLike)):
        # Opened before the model is loaded: a mistyped name is found sooner.
        dataset = open_source(
            dataset, split, data_dir, None, lambda: model_image_size(model_or_name)
        )
    model = model_or_name
    if isinstance(model, (str, os.PathLike)):
        from lsmha_keras.models import load_classifier

        model = load_classifier(model)
    total = np.zeros(4)
    for images, labels in checked_chunks(model, dataset, batch_size):
        total += score_sums(predict_logits(model, images, batch_size), labels)
    return mean_figures(total)


def checked_chunks(model, dataset, batch_size):
    """Goes through labelled images in large chunks, checking that they fit a classifier.

    Args:
        model: classifier.
        dataset: as for `evaluate`, but not a name.
        batch_size: int, images of a batch where the dataset does not decide that itself.

    Yields:
        Pairs of an array of raw images and an int array of their labels.

    Raises:
        ValueError: as `evaluate`.
    """
    from lsmha_keras.image_values import warn_of_fractions

    num_classes, seen, channels = model.output_shape[-1], 0, _channels(model)
    warned = False
    _check_classes(dataset, model, num_classes)
    for images, labels in _chunks(labelled_batches(dataset, batch_size)):
        _check_images(images, channels)
        if not hasattr(model, "preprocess_samples") and not warned:  # which warns itself
            warned = warn_of_fractions(images, stacklevel=3)
        yield images, class_labels(labels, num_classes, seen)
        seen += len(images)
    if not seen:
        raise ValueError("The dataset holds no images. Received: 0 images")


def mean_figures(sums):
    """Turns the sums of `score_sums` into the dict that `evaluate` returns."""
    loss, accuracy, top5 = (float(value) for value in sums[:3] / sums[3])
    return {"loss": loss, "accuracy": accuracy, "top5_accuracy": top5, "num_images": int(sums[3])}


def predict_logits(model, images, batch_size):
    """Runs a classifier on an array of images.

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
        raise ValueError(
            f"The model must give logits or a softmax. Received: activation={activation}"
        )
    return outputs


def score_sums(logits, labels):
    """Returns the sums over images of cross-entropy, hits, hits among the first five, and one.

    Args:
        logits: `(images, classes)` array.
        labels: `(images,)` ints.

    Returns:
        `(4,)` float64 array.
    """
    logits = logits.astype("float64")
    own = logits[np.arange(len(labels)), labels]
    top = logits.max(axis=1)
    loss = top + np.log(np.exp(logits - top[:, None]).sum(axis=1)) - own
    # As `argmax` does, the lower label wins a tie.
    ahead = (logits > own[:, None]).sum(axis=1)
    ties = np.arange(logits.shape[1])[None, :] < labels[:, None]
    ahead += ((logits == own[:, None]) & ties).sum(axis=1)
    return np.array([loss.sum(), (ahead < 1).sum(), (ahead < 5).sum(), len(labels)])


def full_batches(images, batch_size):
    """Repeats the last image until the last batch is full."""
    # No second compilation on jax, and every device gets its share.
    missing = -len(images) % batch_size
    return np.concatenate([images, np.repeat(images[-1:], missing, axis=0)])


def _chunks(batches):
    """Joins batches until they are worth a call of `predict`."""
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
        raise ValueError(
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


def _check_images(images, channels):
    if channels is not None and images.shape[-1] != channels:
        raise ValueError(
            f"The model takes images with {channels} channels. "
            f"Received: images of shape {images.shape}"
        )
    if images.dtype == np.uint8:
        return
    low, high = images.min(), images.max()
    if not (low >= 0 and high <= 255):  # also true for nan
        raise ValueError(
            f"Images must have values in 0 .. 255. Received: values from {low:g} to {high:g}"
        )


def _channels(model):
    shape = getattr(model, "image_shape", None)
    return shape[-1] if shape else None
