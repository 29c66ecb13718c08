"""Feeds arrays and `PyDataset`s to a model through its preprocessor, without TensorFlow."""

import contextlib
import sys

import keras
import numpy as np

from lsmha_keras.arguments import positive_int
from lsmha_keras.errors import InputError
from lsmha_keras.models.keras_workarounds import check_shares, devices_per_batch


class PreprocessedBatches(keras.utils.PyDataset):
    """Batches of arrays, or of another `PyDataset`, passed through a model's preprocessor.

    KerasHub preprocesses only `tf.data` and Grain pipelines, and does not shuffle arrays. This
    gives arrays and `PyDataset`s the behaviour of `keras.Model.fit`.

    Args:
        preprocess: function of `(x, y, sample_weight)`, such as `Task.preprocess_samples`.
        x: array of images, list of images of different sizes, or a `keras.utils.PyDataset`.
        y, sample_weight: arrays or `None`; `None` if `x` is a `PyDataset`.
        batch_size: int or `None` for 32. `None` if `x` is a `PyDataset`.
        shuffle: bool, whether arrays are shuffled every epoch.
        check_count: function of a batch's number of images that raises if they cannot be divided
            among the devices, or `None`.

    Raises:
        ValueError: if arrays are empty or differ in length, the batch size is not positive, or
            arguments contradict each other.
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
        if check_count is not None:  # now, rather than at the end of the first epoch
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
        """Shuffles arrays again, or passes the event on to the wrapped dataset."""
        if self._is_dataset:
            self.x.on_epoch_end()
        else:
            self._reorder()

    def release(self):
        """Drops the references to images, labels and preprocessor."""
        self.preprocess = self.x = self.y = self.sample_weight = None

    def _reorder(self):
        if self.shuffle:
            # NumPy's global generator, which `keras.utils.set_random_seed` seeds.
            np.random.shuffle(self._order)


@contextlib.contextmanager
def released(*data):
    """Context manager that releases the arrays of `PreprocessedBatches` when it ends.

    TensorFlow 2.21 keeps every Python function that a `tf.data` pipeline calls in its default
    graph, which is never deleted. Keras feeds a `PyDataset` through such a function, so every call
    of `predict` would keep its images in memory.

    Args:
        data: `PreprocessedBatches`, which cannot be used afterwards; anything else is ignored.
    """
    try:
        yield
    finally:
        for batches in data:
            if isinstance(batches, PreprocessedBatches):
                batches.release()


def preprocessed(preprocess, x, y=None, sample_weight=None, check_count=None):
    """Preprocesses one batch and returns it as NumPy arrays.

    Args:
        preprocess: as for `PreprocessedBatches`.
        x: array of images, or an object array of images of different sizes.
        y: array of labels or `None`.
        sample_weight: array or `None`.
        check_count: as for `PreprocessedBatches`.

    Raises:
        ValueError: if images still differ in size after preprocessing, or cannot be divided evenly
            among the devices.
    """
    images = x.get("image", x.get("images")) if isinstance(x, dict) else x
    if images is not None and check_count is not None:
        check_count(len(images))
    if not (isinstance(x, np.ndarray) and x.dtype.kind == "O") or is_text(x):
        batch = preprocess(x, y, sample_weight)
        # A dict of images if the members of a committee preprocess differently.
        return keras.tree.map_structure(to_numpy, batch)
    # The labels go through the preprocessor with the first image.
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
    """Yields the preprocessed batches of an iterable as tuples; raises if there are none."""
    batch = None
    for batch in batches:
        x, *rest = keras.utils.unpack_x_y_sample_weight(batch)
        x = {key: to_numpy(x[key]) for key in x} if isinstance(x, dict) else to_numpy(x)
        batch = preprocessed(preprocess, x, *map(to_numpy, rest), check_count=check_count)
        yield batch if isinstance(batch, tuple) else (batch,)
    if batch is None:
        raise InputError(no_batches(batches))


def no_batches(dataset):
    """Returns the error message for a dataset without batches, on which Keras's loops fail."""
    return f"Data must hold at least one batch. Received: a {type(dataset).__name__} without one"


def check_batched(dataset, shape, rank=3):
    """Refuses a `tf.data.Dataset` that is empty or not batched.

    Args:
        dataset: `tf.data.Dataset`.
        shape: `tf.TensorShape` of its first part.
        rank: int, number of axes of one image, series or text. Defaults to `3`.
    """
    if dataset.cardinality() == 0:
        raise InputError(no_batches(dataset))
    if shape.rank == rank:
        kind = " of shape (batch, height, width, channels)" if rank == 3 else ""
        raise InputError(
            f"A tf.data.Dataset must give batches{kind}: "
            f"call its `batch`. Received: elements of shape {tuple(shape)}"
        )


def check_counts(options):
    """Refuses counts that are not positive ints; Keras takes 0 for "not given"."""
    for name in ("steps", "steps_per_epoch", "validation_steps", "validation_batch_size"):
        if options.get(name) is not None:
            positive_int(name, options[name])


def is_tf(x):
    """Returns whether `x` is a TensorFlow tensor, without importing TensorFlow."""
    return type(x).__module__.startswith("tensorflow") and hasattr(x, "dtype")


def is_tf_dataset(x):
    """Returns whether `x` is a `tf.data.Dataset`, without importing TensorFlow."""
    return any(
        kind.__module__.startswith("tensorflow.python.data") for kind in type(x).__mro__
    ) and hasattr(x, "map")


def is_grain(value):
    """Returns whether `value` is a dataset or a `DataLoader` of Grain."""
    grain = sys.modules.get("grain")  # not imported: there can be no such object
    kinds = () if grain is None else (grain.MapDataset, grain.IterDataset, grain.DataLoader)
    return isinstance(value, kinds)


def preprocessed_grain(preprocess, data, check_count=None):
    """Returns a Grain dataset of the preprocessed batches of another dataset or a loader."""
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
            raise NotImplementedError("Save the state of the loader itself.")

        set_state = get_state

    class Batches(grain.IterDataset):
        def __iter__(self):
            return Iterator()

    return Batches()


def is_torch_loader(value):
    """Returns whether `value` is a `torch.utils.data.DataLoader`."""
    torch = sys.modules.get("torch")  # not imported: there can be no such object
    return torch is not None and isinstance(value, torch.utils.data.DataLoader)


def preprocessed_loader(preprocess, loader, check_count=None):
    """Returns a `torch.utils.data.DataLoader` of the preprocessed batches of another one."""
    import torch

    if hasattr(loader.dataset, "__len__") and not len(loader):
        raise InputError(no_batches(loader))

    class Batches(torch.utils.data.IterableDataset):
        def __iter__(self):
            return preprocessed_generator(preprocess, loader, check_count)

    if hasattr(loader.dataset, "__len__"):
        Batches.__len__ = lambda self: len(loader)
    return torch.utils.data.DataLoader(Batches(), batch_size=None)


def is_text(x):
    """Returns whether an array or a list holds a text: then it must hold nothing else."""
    if isinstance(x, np.ndarray):
        return x.dtype.kind in "US" or (x.dtype.kind == "O" and is_text(list(x.flat)))
    return any(isinstance(one, (str, bytes)) for one in x)


def _as_rows(images):
    """Returns an array of images, an object array if their shapes differ."""
    if isinstance(images, (list, tuple)) and is_text(images):
        return np.array(images, dtype=object)  # not "U", where all would be as long as the longest
    if isinstance(images, (list, tuple)) and len(images):
        images = [to_numpy(image) for image in images]
        if missing := [i for i, image in enumerate(images) if image is None]:
            raise InputError(
                f"Each sample must be an array or a text. Received: x[{missing[0]}]=None"
            )
        if len({image.shape for image in images}) > 1:
            rows = np.empty(len(images), dtype=object)
            rows[:] = images
            return rows
    return to_numpy(images)


def to_numpy(value):
    """Returns any array or list as a NumPy array; `None` stays `None`."""
    if value is None or isinstance(value, np.ndarray):
        return value
    if keras.ops.is_tensor(value):
        return keras.ops.convert_to_numpy(value)
    return np.asarray(value)


def preprocessed_dataset(model, dataset, preprocess):
    """Returns a `tf.data.Dataset` of the preprocessed batches of another one.

    Args:
        model: classifier that gets the batches.
        dataset: `tf.data.Dataset` of batches of raw images.
        preprocess: function of a batch.

    Raises:
        ValueError: if the dataset is not batched or is empty. An empty dataset of unknown length
            is found only when it is read.
    """
    import tensorflow as tf

    spec = tf.nest.flatten(dataset.element_spec)[0]
    text = spec.dtype == tf.string
    check_batched(dataset, spec.shape, 0 if text else len(model.image_shape))
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
        # Appends no batches, only the check: without a batch, Keras 3.15's loops fail in their
        # middle or stay silent.
        ends = tf.data.Dataset.range(1)
        nothing = ends.flat_map(lambda n: mapped.take(model.checked_in_graph(n, end, n)))
        mapped = mapped.concatenate(nothing)
    return mapped.prefetch(tf.data.AUTOTUNE)
