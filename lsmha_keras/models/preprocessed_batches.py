"""Feeds arrays and `PyDataset`s to a model through its preprocessor, without TensorFlow."""

import contextlib
import sys

import keras
import numpy as np

from lsmha_keras.errors import InputError


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

    Raises:
        ValueError: if arrays are empty or differ in length, or if arguments do not go together.
    """

    def __init__(self, preprocess, x, y=None, sample_weight=None, batch_size=None, shuffle=False):
        self._is_dataset = isinstance(x, keras.utils.PyDataset)
        settings = ("workers", "use_multiprocessing", "max_queue_size")
        super().__init__(**{k: getattr(x, k) for k in settings} if self._is_dataset else {})
        self.preprocess = preprocess
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
        self.batch_size = batch_size or 32
        if self.num_batches > 1:
            check_shares(self.batch_size)
        check_shares(len(self.x) % self.batch_size)  # before the first epoch, not at its end
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
        return preprocessed(self.preprocess, x, y, sample_weight)

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


def preprocessed(preprocess, x, y=None, sample_weight=None):
    """Returns one batch after its preprocessing, in NumPy arrays.

    Args:
        preprocess: as for `PreprocessedBatches`.
        x: array of images, or an array of objects, images of different sizes.
        y: array of labels or `None`.
        sample_weight: array or `None`.

    Raises:
        ValueError: if images have different sizes also after their preprocessing, or their number
            cannot be divided among Keras's devices.
    """
    images = x.get("image", x.get("images")) if isinstance(x, dict) else x
    if images is not None:
        check_shares(len(images))
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


def preprocessed_generator(preprocess, batches):
    """Yields the batches of an iterable, as tuples, after their preprocessing."""
    for batch in batches:
        x, *rest = keras.utils.unpack_x_y_sample_weight(batch)
        x = {key: to_numpy(x[key]) for key in x} if isinstance(x, dict) else to_numpy(x)
        parts = (x, *map(to_numpy, rest))
        batch = preprocessed(preprocess, *parts)
        yield batch if isinstance(batch, tuple) else (batch,)


def no_batches(dataset):
    """Returns what is said of a dataset without batches, which Keras's loops do not expect."""
    return (
        f"A dataset must have at least one batch. Received: a {type(dataset).__name__} of length 0"
    )


def is_grain(value):
    """Returns whether `value` is a dataset or a `DataLoader` of Grain."""
    grain = sys.modules.get("grain")  # Where nobody has imported it there are none.
    kinds = () if grain is None else (grain.MapDataset, grain.IterDataset, grain.DataLoader)
    return isinstance(value, kinds)


def preprocessed_grain(preprocess, data):
    """Returns a dataset of Grain of another one's, or a loader's, batches after preprocessing."""
    import grain

    if not isinstance(data, grain.DataLoader):
        return data.map(lambda batch: next(preprocessed_generator(preprocess, [batch])))

    class Iterator(grain.DatasetIterator):
        def __init__(self):
            super().__init__()
            self._batches = preprocessed_generator(preprocess, data)

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


def preprocessed_loader(preprocess, loader):
    """Returns a `torch.utils.data.DataLoader` of another one's batches after preprocessing."""
    import torch

    if hasattr(loader.dataset, "__len__") and not len(loader):
        raise InputError(no_batches(loader))

    class Batches(torch.utils.data.IterableDataset):
        def __iter__(self):
            return preprocessed_generator(preprocess, loader)

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


def devices_per_batch():
    """Returns among how many devices Keras divides every batch; 1 without a distribution."""
    distribution = keras.distribution.distribution()
    name = getattr(distribution, "batch_dim_name", None)
    if name is None:
        return 1
    mesh = distribution.device_mesh
    return mesh.shape[mesh.axis_names.index(name)]


def check_shares(count):
    """Refuses a batch that Keras 3.15 cannot divide: JAX gives every device as many images.

    Args:
        count: int, images of the batch.

    Raises:
        ValueError: if they are no multiple of the devices.
    """
    devices = devices_per_batch()
    if count % devices:
        raise InputError(
            f"Each of {devices} devices gets as many images of a batch: `batch_size` and the "
            f"number of images must be multiples of {devices}. `predict` of arrays and "
            "`lsmha_keras.evaluate` fill the last batch up themselves. "
            f"Received: a batch of {count} images"
        )
