"""What classifiers of raw images have in common."""

import keras
import keras_hub
import numpy as np

from lsmha_keras.models.cct_image_converter import check_image_values
from lsmha_keras.models.preprocessed_batches import PreprocessedBatches
from lsmha_keras.progress import fit_progress, progress_style


class RawImageClassifier(keras_hub.models.ImageClassifier):
    """Base of classifiers that train and predict on images as they are, with values 0 to 255.

    Arrays, `keras.utils.PyDataset` and `tf.data.Dataset` go through `preprocess_samples` on their
    way into `fit`, `evaluate` and `predict`; with `verbose="auto"` these show a bar in a terminal
    and lines without control characters anywhere else. A subclass builds the model and sets
    `num_classes`, `activation`, `class_names` and `preprocessor`.
    """

    def compile(
        self, optimizer="auto", loss="auto", *, metrics="auto", jit_compile="auto", **kwargs
    ):
        """Configures training; as `keras_hub.models.ImageClassifier.compile`.

        `metrics="auto"` is the accuracy, for integer and for one-hot labels.
        `jit_compile="auto"` leaves XLA out on TensorFlow without a GPU: its convolutions are
        slower on CPUs than TensorFlow's own.
        """
        metrics = ["accuracy"] if metrics == "auto" else metrics
        if jit_compile == "auto" and keras.config.backend() == "tensorflow":
            import tensorflow as tf

            jit_compile = "auto" if tf.config.list_physical_devices("GPU") else False
        super().compile(
            optimizer=optimizer, loss=loss, metrics=metrics, jit_compile=jit_compile, **kwargs
        )

    def preprocess_samples(self, x, y=None, sample_weight=None):
        """Checks images and labels that are NumPy arrays, then runs the preprocessor."""
        if self.preprocessor is not None and isinstance(x, np.ndarray):
            check_image_values(x)
        if isinstance(y, np.ndarray):
            self._check_labels(y)
        return super().preprocess_samples(x, y, sample_weight)

    def _check_labels(self, y):
        if y.ndim == 1 and y.dtype.kind in "iu" and y.size:
            if y.min() < 0 or y.max() >= self.num_classes:
                raise ValueError(
                    f"Labels must be from 0 to {self.num_classes - 1}, as the model has "
                    f"{self.num_classes} classes. Received: labels from {y.min()} to {y.max()}"
                )
        elif y.ndim == 2 and y.shape[1] not in (1, self.num_classes):
            raise ValueError(
                f"One-hot labels must have {self.num_classes} columns, one per class. "
                f"Received: labels of shape {y.shape}"
            )

    def fit(
        self,
        x=None,
        y=None,
        batch_size=None,
        sample_weight=None,
        validation_data=None,
        validation_split=None,
        shuffle=True,
        **kwargs,
    ):
        """Trains; as `keras.Model.fit`, on raw images and with arrays shuffled every epoch.

        `verbose=2` prints one line per epoch.
        """
        kwargs |= fit_progress(kwargs.get("verbose", "auto"), kwargs.get("callbacks"))
        if not _is_array_or_py_dataset(x):
            kwargs["shuffle"] = False  # Datasets shuffle themselves; Keras would warn.
            return super().fit(
                x, y, batch_size, sample_weight, validation_data, validation_split, **kwargs
            )
        if validation_split and validation_data is None:
            (x, y, sample_weight), validation_data = _split((x, y, sample_weight), validation_split)
        if validation_data is not None:
            validation_data = self._preprocessed_validation(validation_data, batch_size)
        batches = PreprocessedBatches(
            self.preprocess_samples, x, y, sample_weight, batch_size, shuffle
        )
        return keras.Model.fit(self, batches, validation_data=validation_data, **kwargs)

    def evaluate(self, x=None, y=None, batch_size=None, sample_weight=None, **kwargs):
        """Evaluates; as `keras.Model.evaluate`, on raw images."""
        kwargs["verbose"] = progress_style(kwargs.get("verbose", "auto"))
        cached = kwargs.get("_use_cached_eval_dataset", False)  # Set by `fit`.
        if cached or not _is_array_or_py_dataset(x):
            return super().evaluate(x, y, batch_size, sample_weight, **kwargs)
        batches = PreprocessedBatches(self.preprocess_samples, x, y, sample_weight, batch_size)
        return keras.Model.evaluate(self, batches, **kwargs)

    def predict(self, x, batch_size=None, **kwargs):
        """Predicts; as `keras.Model.predict`, on raw images."""
        kwargs["verbose"] = progress_style(kwargs.get("verbose", "auto"))
        if not _is_array_or_py_dataset(x):
            return super().predict(x, batch_size=batch_size, **kwargs)
        batches = PreprocessedBatches(self.preprocess_samples, x, batch_size=batch_size)
        return keras.Model.predict(self, batches, **kwargs)

    def _preprocessed_validation(self, data, batch_size):
        if isinstance(data, keras.utils.PyDataset):
            return PreprocessedBatches(self.preprocess_samples, data)
        if isinstance(data, (tuple, list)):
            x, y, sample_weight = keras.utils.unpack_x_y_sample_weight(tuple(data))
            return PreprocessedBatches(self.preprocess_samples, x, y, sample_weight, batch_size)
        return data.map(self.preprocess_samples)  # tf.data and Grain


def _is_array_or_py_dataset(x):
    return isinstance(x, (list, tuple, keras.utils.PyDataset)) or hasattr(x, "__array__")


def _split(arrays, validation_split):
    """Holds out the last fraction of arrays, as `keras.Model.fit` does."""
    x = arrays[0]
    if isinstance(x, keras.utils.PyDataset) or not 0 < validation_split < 1:
        raise ValueError(
            "`validation_split` must be in (0, 1) and `x` arrays, not a `PyDataset`. "
            f"Received: validation_split={validation_split}, x of type {type(x).__name__}"
        )
    cut = int(len(x) * (1 - validation_split))
    if cut in (0, len(x)):
        raise ValueError(
            f"`validation_split={validation_split}` leaves training or validation without data. "
            f"Received: {len(x)} images"
        )
    parts = [None if a is None else (a[:cut], a[cut:]) for a in arrays]
    return tuple(tuple(None if p is None else p[i] for p in parts) for i in range(2))
