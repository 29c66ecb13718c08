"""Feeds arrays and `PyDataset`s to a model through its preprocessor, without TensorFlow."""

import contextlib
import sys

import keras
import numpy as np

from lsmha_keras.arguments import positive_int
from lsmha_keras.errors import InputError
from lsmha_keras.models.shares import check_shares, devices_per_batch


class PreprocessedBatches(keras.utils.PyDataset):
    """Batches of arrays, or of another `PyDataset`, passed through a model's preprocessor.

    KerasHub preprocesses `tf.data` and Grain pipelines only, and leaves arrays unshuffled; this
    gives arrays and `PyDataset`s the behaviour of `keras.Model.fit`.

    Args:
        preprocess: function of `(x, y, sample_weight)`, such as `Task.preprocess_samples`.
        x: array of images, list of images of different sizes, or a `keras.utils.PyDataset`.
        y, sample_weight: arrays or `None`; `None` if `x` is a `PyDataset`.
        batch_size: int or `None` for 32. `None` if `x` is a `PyDataset`.
        shuffle: bool, whether arrays are put in a new order every epoch.
        check_count: function of a batch's number of images that refuses what cannot be divided
            among devices, or `None`.

    Raises:
        ValueError: if arrays are empty or differ in length, the batch size is not positive, or
            arguments do not go together.
    """

    def __init__(
        self,
        preprocess,
        x,
        y=None,
        sample_weight=None,
        batch_size=None,
        shuffle=False,
        check_count=None,
    ):
        self._is_dataset = isinstance(x, keras.utils.PyDataset)
        settings = ("workers", "use_multiprocessing", "max_queue_size")
        super().__init__(**{k: getattr(x, k) for k in settings} if self._is_dataset else {})
        self.preprocess, self.check_count = preprocess, check_count
        if self._is_dataset:
            if not (y is None and sample_weight is None and batch_size is None):
                raise InputError(
                    "When `x` is a `PyDataset`, it supplies `y`, `sample_weight` and the batches "
                    "itself: pass none of them."
                )
            self.x = x
            if x.num_batches == 0:
                raise InputError(no_batches(x))
            return
        arrays = [_as_rows(x), to_numpy(y), to_numpy(sample_weight)]
        self.x, self.y, self.sample_weight = arrays
        lengths = {len(a) for a in arrays if a is not None and a.ndim}
        if len(lengths) != 1 or lengths == {0}:
            raise InputError(
                "`x`, `y` and `sample_weight` must be arrays of the same length, at least 1. "
                f"Received: shapes {[a.shape for a in arrays if a is not None]}"
            )
        self.batch_size = 32 if batch_size is None else positive_int("batch_size", batch_size)
        if check_count is not None:  # before the first epoch, not at its end
            rest = len(self.x) % self.batch_size
            for count in [self.batch_size, rest] if self.num_batches > 1 else [len(self.x)]:
                check_count(count)
        self.shuffle = shuffle
        self._order = np.arange(len(self.x))
        self._reorder()

    @property
    def num_batches(self):
        """Number of batches of an epoch."""
        if self._is_dataset:
            return self.x.num_batches
        return -(-len(self.x) // self.batch_size)

    def __getitem__(self, index):
        if self._is_dataset:
            x, y, sample_weight = keras.utils.unpack_x_y_sample_weight(self.x[index])
        else:
            rows = self._order[index * self.batch_size : (index + 1) * self.batch_size]
            x, y, sample_weight = (
                None if a is None else a[rows] for a in (self.x, self.y, self.sample_weight)
            )
        return preprocessed(self.preprocess, x, y, sample_weight, self.check_count)

    def on_epoch_begin(self):
        """Passes the event on to the wrapped dataset."""
        if self._is_dataset:
            self.x.on_epoch_begin()

    def on_epoch_end(self):
        """Puts arrays in a new order, or passes the event on to the wrapped dataset."""
        if self._is_dataset:
            self.x.on_epoch_end()
        else:
            self._reorder()

    def release(self):
        """Lets go of the images, the labels and the preprocessor."""
        self.preprocess = self.x = self.y = self.sample_weight = None

    def _reorder(self):
        if self.shuffle:
            # NumPy's global generator, which `keras.utils.set_random_seed` seeds.
            np.random.shuffle(self._order)


@contextlib.contextmanager
def released(*data):
    """At its end, lets go of what arrays were turned into `PreprocessedBatches`.

    TensorFlow 2.21 keeps every Python function that a `tf.data` pipeline calls in its default
    graph, which is never deleted. Keras feeds a `PyDataset` by such a function, so that each call
    of `predict` would keep its images.

    Args:
        data: `PreprocessedBatches`, which cannot be used afterwards, or anything else.
    """
    try:
        yield
    finally:
        for batches in data:
            if isinstance(batches, PreprocessedBatches):
                batches.release()


def preprocessed(preprocess, x, y=None, sample_weight=None, check_count=None):
    """Returns one batch after its preprocessing, in NumPy arrays.

    Args:
        preprocess: as for `PreprocessedBatches`.
        x: array of images, or an array of objects, images of different sizes.
        y: array of labels or `None`.
        sample_weight: array or `None`.
        check_count: as for `PreprocessedBatches`.

    Raises:
        ValueError: if images have different sizes also after their preprocessing, or their number
            cannot be divided among the devices.
    """
    images = x.get("image", x.get("images")) if isinstance(x, dict) else x
    if images is not None and check_count is not None:
        check_count(len(images))
    if not (isinstance(x, np.ndarray) and x.dtype.kind == "O"):
        batch = preprocess(x, y, sample_weight)
        # A committee whose members preprocess differently gets a dict of images.
        return keras.tree.map_structure(to_numpy, batch)
    # Labels pass the preprocessor with the first image.
    first, y, sample_weight = keras.utils.unpack_x_y_sample_weight(
        preprocess(x[0][None], y, sample_weight)
    )
    images = [first, *(preprocess(image[None]) for image in x[1:])]
    sizes = {tuple(array.shape) for array in keras.tree.flatten(images)}
    if len(sizes) > 1 and not isinstance(first, dict):
        raise InputError(
            "Images of different sizes need a preprocessor with an `image_size`, which resizes "
            f"them. Received: images of shapes {sorted(image.shape for image in x)}"
        )
    joined = keras.tree.map_structure(
        lambda *parts: np.concatenate([*map(to_numpy, parts)]), *images
    )
    batch = keras.utils.pack_x_y_sample_weight(joined, y, sample_weight)
    return keras.tree.map_structure(to_numpy, batch)


def preprocessed_generator(preprocess, batches, check_count=None):
    """Yields the batches of an iterable, as tuples, after their preprocessing; at least one."""
    batch = None
    for batch in batches:
        x, *rest = keras.utils.unpack_x_y_sample_weight(batch)
        x = {key: to_numpy(x[key]) for key in x} if isinstance(x, dict) else to_numpy(x)
        batch = preprocessed(preprocess, x, *map(to_numpy, rest), check_count=check_count)
        yield batch if isinstance(batch, tuple) else (batch,)
    if batch is None:
        raise InputError(no_batches(batches))


def no_batches(dataset):
    """Returns what is said of a dataset without batches, which Keras's loops do not expect."""
    return f"Data must hold at least one batch. Received: a {type(dataset).__name__} without one"


def check_batched(dataset, shape):
    """Refuses a `tf.data.Dataset` of nothing, or of single images."""
    if dataset.cardinality() == 0:
        raise InputError(no_batches(dataset))
    if shape.rank == 3:
        raise InputError(
            "A tf.data.Dataset must give batches of shape (batch, height, width, channels): "
            f"call its `batch`. Received: elements of shape {tuple(shape)}"
        )


def check_counts(options):
    """Refuses 0 batches, which Keras takes for "not given", and what is no number of them."""
    for name in ("steps", "steps_per_epoch", "validation_steps", "validation_batch_size"):
        if options.get(name) is not None:
            positive_int(name, options[name])


def is_tf(x):
    """Whether `x` is a tensor of TensorFlow, which need not be there."""
    return type(x).__module__.startswith("tensorflow") and hasattr(x, "dtype")


def is_tf_dataset(x):
    """Whether `x` is a `tf.data.Dataset`, without an import of TensorFlow."""
    return any(
        kind.__module__.startswith("tensorflow.python.data") for kind in type(x).__mro__
    ) and hasattr(x, "map")


def is_grain(value):
    """Returns whether `value` is a dataset or a `DataLoader` of Grain."""
    grain = sys.modules.get("grain")  # Where nobody has imported it there are none.
    kinds = () if grain is None else (grain.MapDataset, grain.IterDataset, grain.DataLoader)
    return isinstance(value, kinds)


def preprocessed_grain(preprocess, data, check_count=None):
    """Returns a dataset of Grain of another one's, or a loader's, batches after preprocessing."""
    import grain

    if isinstance(data, grain.MapDataset):
        if not len(data):
            raise InputError(no_batches(data))
        return data.map(
            lambda batch: next(preprocessed_generator(preprocess, [batch], check_count))
        )

    class Iterator(grain.DatasetIterator):
        def __init__(self):
            super().__init__()
            self._batches = preprocessed_generator(preprocess, data, check_count)

        def __next__(self):
            return next(self._batches)

        def get_state(self):
            raise NotImplementedError("The state of the loader itself can be saved.")

        set_state = get_state

    class Batches(grain.IterDataset):
        def __iter__(self):
            return Iterator()

    return Batches()


def is_torch_loader(value):
    """Returns whether `value` is a `torch.utils.data.DataLoader`."""
    torch = sys.modules.get("torch")  # Where nobody has imported it there are no loaders.
    return torch is not None and isinstance(value, torch.utils.data.DataLoader)


def preprocessed_loader(preprocess, loader, check_count=None):
    """Returns a `torch.utils.data.DataLoader` of another one's batches after preprocessing."""
    import torch

    if hasattr(loader.dataset, "__len__") and not len(loader):
        raise InputError(no_batches(loader))

    class Batches(torch.utils.data.IterableDataset):
        def __iter__(self):
            return preprocessed_generator(preprocess, loader, check_count)

    if hasattr(loader.dataset, "__len__"):
        Batches.__len__ = lambda self: len(loader)
    return torch.utils.data.DataLoader(Batches(), batch_size=None)


def _as_rows(images):
    """Returns an array of images, or one of objects if their shapes differ."""
    if isinstance(images, (list, tuple)) and len(images):
        images = [to_numpy(image) for image in images]
        if len({image.shape for image in images}) > 1:
            rows = np.empty(len(images), dtype=object)
            rows[:] = images
            return rows
    return to_numpy(images)


def to_numpy(value):
    """Returns `value`, of any kind of array or list, as a NumPy array; `None` stays `None`."""
    if value is None or isinstance(value, np.ndarray):
        return value
    if keras.ops.is_tensor(value):
        return keras.ops.convert_to_numpy(value)
    return np.asarray(value)


def preprocessed_dataset(model, dataset, preprocess):
    """Returns a `tf.data.Dataset` of another one's batches after preprocessing.

    Args:
        model: classifier that is called on the batches.
        dataset: `tf.data.Dataset` of batches of raw images.
        preprocess: function of a batch.

    Raises:
        ValueError: if the dataset is not batched or empty; if that is not known before, where it
            is read.
    """
    import tensorflow as tf

    check_batched(dataset, tf.nest.flatten(dataset.element_spec)[0].shape)
    devices, seen = devices_per_batch(model), []

    def check(owner, count):
        seen.append(count)
        check_shares(count, devices)

    def shared(*batch):
        first, *rest = tf.nest.flatten(batch)
        first = model.checked_in_graph(first, check, tf.shape(first)[0])
        return tf.nest.pack_sequence_as(batch, [first, *rest])

    def end(owner, step):
        if not seen:
            raise InputError(no_batches(dataset))

    is_of_unknown_length = dataset.cardinality() == tf.data.UNKNOWN_CARDINALITY
    batches = dataset
    if devices > 1 or is_of_unknown_length:
        batches = batches.map(shared)
    mapped = batches.map(preprocess, num_parallel_calls=tf.data.AUTOTUNE)
    if is_of_unknown_length:
        # Nothing more, but for the check. Keras 3.15's loops fail in their middle, or are
        # silent, where there was no batch.
        ends = tf.data.Dataset.range(1)
        nothing = ends.flat_map(lambda n: mapped.take(model.checked_in_graph(n, end, n)))
        mapped = mapped.concatenate(nothing)
    return mapped.prefetch(tf.data.AUTOTUNE)
