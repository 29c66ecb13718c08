"""A dataset by name, as a pipeline."""

import keras

from lsmha_keras.data.epoch_batches import has_tensorflow
from lsmha_keras.data.open_dataset import open_dataset

_READ_AT_ONCE = 256


def load_dataset(name, split="train", data_dir=None, image_size=None, batch_size=None):
    """Loads labelled images, in order and not augmented.

    Args:
        name: "digits", "cifar10", "cifar100", a folder of class folders, an `.npz` file, or any
            name of TensorFlow Datasets; see `open_dataset`.
        split: "train", "test", or a range such as "train[:90%]"; see `open_dataset`.
        data_dir: folder that holds the data. Default: the environment variable LSMHA_DATA_DIR.
        image_size: int or `(height, width)` to resize to; None keeps the stored size.
        batch_size: int, or None for single images (without TensorFlow, for batches of 128).

    Returns:
        A `tf.data.Dataset` of uint8 images and int32 labels, with an attribute `class_names`.
        Without TensorFlow, a `keras.utils.PyDataset` of batches with the same attribute.

    Raises:
        ValueError: if the dataset or the split is unknown, or the files are not what was expected.
        ImportError: if an optional package that the dataset needs is not installed.

    Example:
        >>> import lsmha_keras as lsmha
        >>> dataset = lsmha.load_dataset("digits", "test", batch_size=32)
        >>> dataset.class_names[:3]
        ['0', '1', '2']
    """
    if batch_size is not None and (not isinstance(batch_size, int) or batch_size < 1):
        raise ValueError(
            f"`batch_size` must be a positive int or None. Received: batch_size={batch_size!r}"
        )
    source = open_dataset(name, split, data_dir, image_size)
    if has_tensorflow():
        return _tf_dataset(source, batch_size)
    return _Batches(source, batch_size or 128)


def _tf_dataset(source, batch_size):
    import tensorflow as tf

    count = len(source)
    at_once = batch_size or _READ_AT_ONCE

    def read(start):
        rows = range(int(start), min(int(start) + at_once, count))
        return source.load(rows), source.labels[rows.start : rows.stop]

    def load(start):
        images, labels = tf.numpy_function(read, [start], ["uint8", "int32"], stateful=False)
        return (
            tf.ensure_shape(images, (None, *source.image_shape)),
            tf.ensure_shape(labels, (None,)),
        )

    dataset = tf.data.Dataset.range(0, count, at_once)
    dataset = dataset.map(load, num_parallel_calls=tf.data.AUTOTUNE, deterministic=True)
    if batch_size is None:
        dataset = dataset.unbatch().apply(tf.data.experimental.assert_cardinality(count))
    dataset = dataset.prefetch(tf.data.AUTOTUNE)
    dataset.class_names = source.class_names
    return dataset


class _Batches(keras.utils.PyDataset):
    def __init__(self, source, batch_size):
        super().__init__()
        self.source = source
        self.class_names = source.class_names
        self.batch_size = batch_size

    def __len__(self):
        return -(-len(self.source) // self.batch_size)

    def __getitem__(self, index):
        start = index * self.batch_size
        rows = range(start, min(start + self.batch_size, len(self.source)))
        if not rows:
            raise IndexError(f"There are {len(self)} batches. Received: index={index}")
        return self.source.load(rows), self.source.labels[rows.start : rows.stop]
