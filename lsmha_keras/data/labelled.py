"""Labelled images from any source as NumPy batches, with their labels checked."""

import os

import keras
import numpy as np

from lsmha_keras.arguments import positive_int
from lsmha_keras.data.open_dataset import model_image_size, open_dataset_for_model
from lsmha_keras.errors import InputError
from lsmha_keras.sample_checks import check_finite


def labelled_batches(dataset, batch_size):
    """Iterates over labelled images in batches.

    Args:
        dataset: an `ImageDataset`, a `tf.data.Dataset` (batched or not), a `keras.utils.PyDataset`,
            a pair of arrays `(images, labels)`, or any other iterable of batches, such as a
            generator or a `DataLoader` of torch or Grain.
        batch_size: int, used for datasets that do not come in batches already.

    Yields:
        Pairs `(images, labels)` of NumPy arrays: `(batch, height, width, channels)`, and any shape
        that begins with `batch`. The types are the dataset's.

    Raises:
        ValueError: if the dataset is none of these, is infinite, has no labels, or its images do
            not have four axes.

    Example:
        >>> images, labels = np.zeros((5, 8, 8, 3), "uint8"), np.arange(5)
        >>> [len(batch[0]) for batch in labelled_batches((images, labels), 2)]
        [2, 2, 1]
    """
    for batch in _batches(dataset, batch_size):
        if isinstance(batch, dict) and {"image", "label"} <= set(batch):  # TFDS's default
            batch = (batch["image"], batch["label"])
        if not isinstance(batch, (tuple, list)) or len(batch) < 2:
            raise InputError(
                "The dataset must yield pairs of images and labels. "
                f"Received: {type(batch).__name__}"
            )
        images, labels = (_to_numpy(part) for part in batch[:2])
        if images.ndim != 4 and not _are_sequences(images):
            raise InputError(
                "Images must have shape (batch, height, width, channels). "
                f"Received: images of shape {images.shape}"
            )
        if labels.shape[:1] != images.shape[:1]:
            raise InputError(
                "There must be one label per image. "
                f"Received: {len(images)} images and labels of shape {labels.shape}"
            )
        yield images, labels


def _are_sequences(values):
    """Whether a batch holds texts, `(batch, time)` ids or `(batch, time, features)` floats."""
    kind = values.dtype.kind
    if kind in "OUS":
        return values.ndim == 1
    return (values.ndim, kind) in ((2, "i"), (3, "f"))


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
            raise InputError(
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
        raise InputError(
            "A dataset must be a name, an ImageDataset, a tf.data.Dataset, a PyDataset, a pair of "
            f"arrays (images, labels) or yield batches of both. Received: {type(dataset).__name__}"
        )


def _tf_batches(dataset, batch_size):
    spec = dataset.element_spec
    pair = (spec.get("image"), spec.get("label")) if isinstance(spec, dict) else spec
    pair = pair if isinstance(pair, (tuple, list)) and len(pair) > 1 else (pair, None)
    if _is_single(*pair[:2]):
        dataset = dataset.batch(batch_size)
    if dataset.cardinality().numpy() == -1:  # tf.data.INFINITE_CARDINALITY
        raise InputError(
            "The dataset must be finite: leave out `repeat()`. Received: an endless tf.data.Dataset"
        )
    yield from dataset.as_numpy_iterator()


def _is_single(image, label):
    """Whether elements of these specs are single samples, by the rank of their labels."""
    if image is None:
        return False
    if label is None or label.shape.rank != 1:
        return image.shape.rank == 3 or (label is not None and label.shape.rank == 0)
    # A batch of labels, or the one-hot label of one image: series of a batch have rank 3, too.
    return image.shape.rank == 3 and not (
        image.dtype.is_floating and image.shape[0] == label.shape[0]
    )


def _to_numpy(value):
    if isinstance(value, np.ndarray):
        return value
    return keras.ops.convert_to_numpy(value) if keras.ops.is_tensor(value) else np.asarray(value)


def class_labels(labels, num_classes, offset=0):
    """Turns integer or one-hot labels into integers.

    Args:
        labels: array of shape `(batch,)`, `(batch, 1)` or `(batch, num_classes)`.
        num_classes: int.
        offset: int, number of images before this batch; error messages count from there.

    Returns:
        `(batch,)` int64 array.

    Raises:
        ValueError: if the labels have another shape, are not whole numbers or are out of range.

    Example:
        >>> class_labels(np.array([[0.0, 1.0, 0.0]]), 3).tolist()
        [1]
    """
    check_finite("label", labels, offset)
    if labels.ndim == 2 and labels.shape[1] == num_classes and num_classes > 1:
        return labels.argmax(axis=1)
    labels = labels[:, 0] if labels.ndim == 2 and labels.shape[1] == 1 else labels
    if labels.ndim != 1 or not (labels == np.floor(labels)).all():
        raise InputError(
            f"Labels must be integers or one-hot with {num_classes} classes. "
            f"Received: labels of shape {labels.shape}, dtype {labels.dtype}"
        )
    wrong = np.flatnonzero((labels < 0) | (labels >= num_classes))
    if len(wrong):
        raise InputError(
            f"Labels must lie in 0 .. {num_classes - 1}, as there are {num_classes} classes. "
            f"Received: label {labels[wrong[0]]} of sample {offset + wrong[0]}"
        )
    return labels.astype("int64")


class ImageBatches:
    """Labelled images in batches, in order or shuffled, for as many epochs as needed.

    Args:
        dataset: a dataset's name, as `lsmha_keras.open_dataset` takes it, an `ImageDataset`, a pair
            of arrays `(images, labels)`, a `keras.utils.PyDataset` or a `tf.data.Dataset`. The last
            two keep their own order.
        batch_size: int, used for datasets that do not come in batches already.
        model: the model that takes the images. Images of a folder with several sizes are resized
            to its input size.
        split: str, the split of a dataset given by name.
        data_dir: folder that holds a dataset given by name.
        max_images: int, or `None` for all. Arrays and named datasets are sampled without
            replacement, the same way for a given seed; of other datasets the first images count.
        seed: int, of the sampling and the shuffling; no global random state is used.

    Raises:
        ValueError: if a number is not positive, or the dataset is unknown or not supported.

    Example:

    ```python
    batches = ImageBatches("digits", batch_size=64, split="train", max_images=500)
    for images, labels in batches.epoch(shuffle=0):
        ...
    ```
    """

    def __init__(
        self,
        dataset,
        batch_size,
        model=None,
        split="test",
        data_dir=None,
        max_images=None,
        seed=0,
    ):
        batch_size = positive_int("batch_size", batch_size)
        if max_images is not None:
            max_images = positive_int("max_images", max_images)
        if isinstance(dataset, (str, os.PathLike)):
            dataset = open_dataset_for_model(
                dataset, split, data_dir, None, lambda: model_image_size(model)
            )
        elif isinstance(dataset, (tuple, list)) and len(dataset) == 2:
            dataset = _Arrays(*dataset)
        self.dataset = dataset
        self.class_names = getattr(dataset, "class_names", None)
        self.batch_size = batch_size
        self.max_images = max_images
        self.seed = seed
        self._is_indexed = hasattr(dataset, "load") and hasattr(dataset, "labels")

    def __len__(self):
        """Number of batches; 0 if unknown."""
        if self._is_indexed:
            return -(-len(self._rows()) // self.batch_size)
        return len(self.dataset) if isinstance(self.dataset, keras.utils.PyDataset) else 0

    def epoch(self, shuffle=None):
        """Iterates over the images once.

        Args:
            shuffle: int, the epoch: each has its own order. `None` keeps the dataset's order. When
                shuffled, an incomplete last batch is filled up with images of the first one.

        Yields:
            Pairs `(images, labels)`, as `labelled_batches` yields them.

        Raises:
            ValueError: if the dataset is empty, has no labels, or its images do not have four axes.
        """
        seen = 0
        for images, labels in labelled_batches(self._batches(shuffle), self.batch_size):
            left = len(images) if self.max_images is None else self.max_images - seen
            if left <= 0:
                return
            seen += len(images)
            yield images[:left], labels[:left]
        if not seen:
            raise InputError("The dataset must hold images. Received: 0 images")

    def _rows(self):
        count = len(self.dataset.labels)
        if self.max_images is None or self.max_images >= count:
            return np.arange(count)
        return np.sort(np.random.default_rng(self.seed).permutation(count)[: self.max_images])

    def _batches(self, shuffle):
        if not self._is_indexed:
            return self.dataset
        rows = self._rows()
        if shuffle is not None:
            rows = np.random.default_rng((self.seed, shuffle)).permutation(rows)
            if len(rows) > self.batch_size:  # A full last batch saves a second compilation.
                rows = np.resize(rows, len(self) * self.batch_size)
        return _RowBatches(self.dataset, rows, self.batch_size)


class _Arrays:
    """A pair of arrays with `load` and `labels`, as an `ImageDataset` has them."""

    def __init__(self, images, labels):
        self.images, self.labels = (_to_numpy(array) for array in (images, labels))
        if not self.labels.ndim or len(self.images) != len(self.labels):
            raise InputError(
                "There must be one label per image. "
                f"Received: shapes {self.images.shape} and {self.labels.shape}"
            )

    def load(self, rows):
        return self.images[rows]


class _RowBatches(keras.utils.PyDataset):
    """The given rows of an indexed dataset, in batches."""

    def __init__(self, dataset, rows, batch_size):
        super().__init__()
        self.dataset, self.rows, self.batch_size = dataset, rows, batch_size

    def __len__(self):
        return -(-len(self.rows) // self.batch_size)

    def __getitem__(self, index):
        rows = self.rows[index * self.batch_size : (index + 1) * self.batch_size]
        return self.dataset.load(rows), self.dataset.labels[rows]
