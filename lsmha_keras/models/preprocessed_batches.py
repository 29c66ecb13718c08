"""Feeds arrays and `PyDataset`s to a model through its preprocessor, without TensorFlow."""

import keras
import numpy as np


class PreprocessedBatches(keras.utils.PyDataset):
    """Batches of arrays, or of another `PyDataset`, passed through a model's preprocessor.

    KerasHub preprocesses `tf.data` and Grain pipelines only, and leaves arrays unshuffled; this
    gives arrays and `PyDataset`s the behaviour of `keras.Model.fit`.

    Args:
        preprocess: function of `(x, y, sample_weight)`, such as `Task.preprocess_samples`.
        x: array of images or a `keras.utils.PyDataset`.
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
                raise ValueError(
                    "When `x` is a `PyDataset`, it supplies `y`, `sample_weight` and the batches "
                    "itself: pass none of them."
                )
            self.x = x
            return
        arrays = [to_numpy(a) for a in (x, y, sample_weight)]
        self.x, self.y, self.sample_weight = arrays
        lengths = {len(a) for a in arrays if a is not None and a.ndim}
        if len(lengths) != 1 or lengths == {0}:
            raise ValueError(
                "`x`, `y` and `sample_weight` must be arrays of the same length, at least 1. "
                f"Received: shapes {[a.shape for a in arrays if a is not None]}"
            )
        self.batch_size = batch_size or 32
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
        batch = self.preprocess(x, y, sample_weight)
        # A committee whose members preprocess differently gets a dict of images.
        return keras.tree.map_structure(to_numpy, batch)

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

    def _reorder(self):
        if self.shuffle:
            # NumPy's global generator, which `keras.utils.set_random_seed` seeds.
            np.random.shuffle(self._order)


def to_numpy(value):
    """Returns `value`, of any kind of array or list, as a NumPy array; `None` stays `None`."""
    if value is None or isinstance(value, np.ndarray):
        return value
    if keras.ops.is_tensor(value):
        return keras.ops.convert_to_numpy(value)
    return np.asarray(value)
