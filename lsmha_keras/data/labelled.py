"""Labelled images of any kind, as NumPy batches with checked labels."""

import keras
import numpy as np

from lsmha_keras.image_values import check_finite


def labelled_batches(dataset, batch_size):
    """Goes through labelled images batch by batch.

    Args:
        dataset: an `ImageDataset`, a `tf.data.Dataset` (batched or not), a `keras.utils.PyDataset`,
            a pair of arrays `(images, labels)`, or anything that gives batches one after the other,
            such as a generator or a `DataLoader` of torch or Grain.
        batch_size: int, images of a batch where the dataset does not decide that itself.

    Yields:
        Pairs of a 4-D array of images and an array of labels.

    Raises:
        ValueError: if the dataset is of another kind, or has no labels or a wrong rank.

    Example:
        >>> images, labels = np.zeros((5, 8, 8, 3), "uint8"), np.arange(5)
        >>> [len(batch[0]) for batch in labelled_batches((images, labels), 2)]
        [2, 2, 1]
    """
    for batch in _batches(dataset, batch_size):
        if isinstance(batch, dict) and {"image", "label"} <= set(batch):  # as TFDS gives them
            batch = (batch["image"], batch["label"])
        if not isinstance(batch, (tuple, list)) or len(batch) < 2:
            raise ValueError(
                "The dataset must give pairs of images and labels. "
                f"Received: {type(batch).__name__}"
            )
        images, labels = (_to_numpy(part) for part in batch[:2])
        if images.ndim != 4:
            raise ValueError(
                "Images must have shape (batch, height, width, channels). "
                f"Received: images of shape {images.shape}"
            )
        if labels.shape[:1] != images.shape[:1]:
            raise ValueError(
                "There must be one label per image. "
                f"Received: {len(images)} images and labels of shape {labels.shape}"
            )
        yield images, labels


def _batches(dataset, batch_size):
    if hasattr(dataset, "load") and hasattr(dataset, "labels"):
        for start in range(0, len(dataset), batch_size):
            rows = np.arange(start, min(start + batch_size, len(dataset)))
            yield dataset.load(rows), dataset.labels[rows]
    elif isinstance(dataset, keras.utils.PyDataset):
        for index in range(len(dataset)):
            yield dataset[index]
    elif hasattr(dataset, "element_spec"):
        yield from _tf_batches(dataset, batch_size)
    elif isinstance(dataset, (tuple, list)) and len(dataset) == 2:
        images, labels = (_to_numpy(part) for part in dataset)
        if not images.ndim or not labels.ndim or len(images) != len(labels):
            raise ValueError(
                "There must be one label per image. "
                f"Received: shapes {images.shape} and {labels.shape}"
            )
        for start in range(0, len(images), batch_size):
            yield images[start : start + batch_size], labels[start : start + batch_size]
    elif hasattr(dataset, "__iter__") and not (
        isinstance(dataset, (list, tuple, dict)) or hasattr(dataset, "__array__")
    ):
        yield from dataset
    else:
        raise ValueError(
            "A dataset must be a name, an ImageDataset, a tf.data.Dataset, a PyDataset, a pair of "
            f"arrays (images, labels) or give batches of both. Received: {type(dataset).__name__}"
        )


def _tf_batches(dataset, batch_size):
    spec = dataset.element_spec
    image = spec.get("image") if isinstance(spec, dict) else spec
    image = image[0] if isinstance(image, (tuple, list)) else image
    if image is not None and image.shape.rank == 3:
        dataset = dataset.batch(batch_size)
    if dataset.cardinality().numpy() == -1:  # tf.data.INFINITE_CARDINALITY
        raise ValueError(
            "The dataset must end; leave out `repeat()`. Received: a tf.data.Dataset without end"
        )
    yield from dataset.as_numpy_iterator()


def _to_numpy(value):
    if isinstance(value, np.ndarray):
        return value
    return keras.ops.convert_to_numpy(value) if keras.ops.is_tensor(value) else np.asarray(value)


def class_labels(labels, num_classes, offset=0):
    """Turns integer or one-hot labels into integers.

    Args:
        labels: array of shape `(batch,)`, `(batch, 1)` or `(batch, num_classes)`.
        num_classes: int.
        offset: int, number of images before this batch, for the error's text.

    Returns:
        `(batch,)` int64 array.

    Raises:
        ValueError: if the shape is another one, or a label is not an integer or out of range.

    Example:
        >>> class_labels(np.array([[0.0, 1.0, 0.0]]), 3).tolist()
        [1]
    """
    check_finite("label", labels, offset)
    if labels.ndim == 2 and labels.shape[1] == num_classes and num_classes > 1:
        return labels.argmax(axis=1)
    labels = labels[:, 0] if labels.ndim == 2 and labels.shape[1] == 1 else labels
    if labels.ndim != 1 or not (labels == np.floor(labels)).all():
        raise ValueError(
            f"Labels must be integers or one-hot with {num_classes} classes. "
            f"Received: labels of shape {labels.shape}, dtype {labels.dtype}"
        )
    wrong = np.flatnonzero((labels < 0) | (labels >= num_classes))
    if len(wrong):
        raise ValueError(
            f"Labels must lie in 0 .. {num_classes - 1}, as there are {num_classes} classes. "
            f"Received: label {labels[wrong[0]]} of image {offset + wrong[0]}"
        )
    return labels.astype("int64")
