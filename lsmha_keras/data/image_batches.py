"""Labelled images of any kind, gone through as often as wanted."""

import os

import keras
import numpy as np
from keras import ops

from lsmha_keras.data.labelled import labelled_batches
from lsmha_keras.data.open_for_model import model_image_size, open_source


class ImageBatches:
    """Goes through labelled images batch by batch, in order or shuffled.

    Args:
        dataset: a dataset's name, as `lsmha_keras.open_dataset` takes it, an `ImageDataset`, a pair
            of arrays `(images, labels)`, a `keras.utils.PyDataset` or a `tf.data.Dataset`. The last
            two keep their own order.
        batch_size: int, images of a batch where the dataset does not decide that itself.
        model: the model the images are for; asked for its image size when a folder holds images of
            many sizes.
        split: part of a dataset given by name.
        data_dir: folder that holds a dataset given by name.
        max_images: int, or `None` for all. With arrays and named datasets they are a random choice,
            always the same for one seed; else the first ones.
        seed: int, for the choice and the shuffling; no global random state is used.

    Raises:
        ValueError: if a number is not positive or the dataset is unknown or of another kind.

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
        _check_positive(batch_size=batch_size)
        if max_images is not None:
            _check_positive(max_images=max_images)
        if isinstance(dataset, (str, os.PathLike)):
            dataset = open_source(dataset, split, data_dir, None, lambda: model_image_size(model))
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
        """Goes through the images once.

        Args:
            shuffle: int, the number of the epoch, for another order in each; `None` keeps the
                order. When shuffled, a last batch that is not full gets some images twice.

        Yields:
            Pairs of a 4-D array of raw images and an array of labels.

        Raises:
            ValueError: if the dataset has no labels, a wrong rank, or no images.
        """
        seen = 0
        for images, labels in labelled_batches(self._batches(shuffle), self.batch_size):
            left = len(images) if self.max_images is None else self.max_images - seen
            if left <= 0:
                return
            seen += len(images)
            yield images[:left], labels[:left]
        if not seen:
            raise ValueError("The dataset must hold images. Received: 0 images")

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
            if len(rows) > self.batch_size:  # Fill the last batch up: one shape, one compilation.
                rows = np.resize(rows, len(self) * self.batch_size)
        return _RowBatches(self.dataset, rows, self.batch_size)


def _check_positive(**arguments):
    for name, value in arguments.items():
        if isinstance(value, bool) or not isinstance(value, int) or value < 1:
            raise ValueError(f"`{name}` must be a positive int. Received: {name}={value}")


class _Arrays:
    """A pair of arrays with the reading side of an `ImageDataset`."""

    def __init__(self, images, labels):
        self.images, self.labels = (
            ops.convert_to_numpy(array) if ops.is_tensor(array) else np.asarray(array)
            for array in (images, labels)
        )
        if not self.labels.ndim or len(self.images) != len(self.labels):
            raise ValueError(
                "There must be one label per image. "
                f"Received: shapes {self.images.shape} and {self.labels.shape}"
            )

    def load(self, rows):
        return self.images[rows]


class _RowBatches(keras.utils.PyDataset):
    """Batches of chosen rows of an indexed dataset."""

    def __init__(self, dataset, rows, batch_size):
        super().__init__()
        self.dataset, self.rows, self.batch_size = dataset, rows, batch_size

    def __len__(self):
        return -(-len(self.rows) // self.batch_size)

    def __getitem__(self, index):
        rows = self.rows[index * self.batch_size : (index + 1) * self.batch_size]
        return self.dataset.load(rows), self.dataset.labels[rows]
