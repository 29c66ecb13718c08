"""What classifiers of raw images have in common."""

import keras
import keras_hub
import numpy as np

from lsmha_keras.models.cct_image_converter import check_image_values, warn_of_fractions
from lsmha_keras.models.preprocessed_batches import PreprocessedBatches
from lsmha_keras.models.torch_parameters import torch_parameters_up_to_date
from lsmha_keras.progress import fit_progress, progress_style


@torch_parameters_up_to_date
class RawImageClassifier(keras_hub.models.ImageClassifier):
    """Base of classifiers that train and predict on images as they are, with values 0 to 255.

    Arrays, `keras.utils.PyDataset` and `tf.data.Dataset` go through `preprocess_samples` on their
    way into `fit`, `evaluate` and `predict`; with `verbose="auto"` these show a bar in a terminal
    and lines without control characters anywhere else. A subclass builds the model and sets
    `num_classes`, `activation`, `class_names` and `preprocessor`.
    """

    _warned = False  # of images with values in 0 .. 1

    def compile(
        self, optimizer="auto", loss="auto", *, metrics="auto", jit_compile="auto", **kwargs
    ):
        """Configures training; as `keras_hub.models.ImageClassifier.compile`.

        `metrics="auto"` is the accuracy, for integer and for one-hot labels.
        `jit_compile="auto"` leaves XLA out on TensorFlow without a GPU: its convolutions are
        slower on CPUs than TensorFlow's own.
        """
        metrics = ["accuracy"] if metrics == "auto" else metrics
        self._jit_compile_given = jit_compile != "auto"
        if jit_compile == "auto" and keras.config.backend() == "tensorflow":
            import tensorflow as tf

            jit_compile = "auto" if tf.config.list_physical_devices("GPU") else False
        super().compile(
            optimizer=optimizer, loss=loss, metrics=metrics, jit_compile=jit_compile, **kwargs
        )

    def get_compile_config(self):
        """Returns what `compile_from_config` takes, or `None` if the model is not compiled."""
        config = super().get_compile_config()
        if config is not None and not self._jit_compile_given:
            config["jit_compile"] = "auto"  # for the machine and backend that load it
        return config

    def compile_from_config(self, config):
        """Compiles as a saved model was; Keras 3.15 leaves that to classes with a `compile`."""
        self.compile(**keras.saving.deserialize_keras_object(config))
        if self.optimizer is not None:
            self.optimizer.build(self.trainable_variables)  # for the state that is loaded next

    def preprocess_samples(self, x, y=None, sample_weight=None):
        """Checks images and labels, then runs the preprocessor.

        Images in a `tf.data` pipeline are checked as it runs, labels only as NumPy arrays. A model
        warns once of images with values in 0 .. 1.
        """
        if self.preprocessor is not None:
            x = self._checked(x)
        if isinstance(y, np.ndarray):
            self._check_labels(y)
        return super().preprocess_samples(x, y, sample_weight)

    def _checked(self, x):
        if isinstance(x, np.ndarray):
            check_image_values(x)
            if not self._warned:
                self._warned = warn_of_fractions(x)
        elif type(x).__module__.startswith("tensorflow") and x.dtype.is_floating:
            import tensorflow as tf

            def check(ends):
                self._checked(ends)
                return ends[:0]

            # Only its ends leave the graph: they are what the checks look at.
            ends = tf.stack([tf.reduce_min(x), tf.reduce_max(x)])
            checked = tf.numpy_function(check, [ends], ends.dtype)
            with tf.control_dependencies([checked]):
                x = tf.identity(x)
        return x

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

        `shuffle=False` leaves the order as it is. A `PyDataset` has its batches shuffled, and so
        have arrays with `shuffle="batch"`. `verbose=2` prints one line per epoch.
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
        # Images are shuffled here, whole batches by Keras.
        by_batch = isinstance(x, keras.utils.PyDataset) or shuffle == "batch"
        batches = PreprocessedBatches(
            self.preprocess_samples, x, y, sample_weight, batch_size, bool(shuffle) and not by_batch
        )
        kwargs["shuffle"] = bool(shuffle) and by_batch
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

    def probabilities(self, outputs):
        """Turns what `predict` returned into probabilities, whatever the model's activation.

        Args:
            outputs: `(images, classes)` array.

        Returns:
            `(images, classes)` float64 array; each row adds up to 1, but for a sigmoid, whose
            outputs are probabilities of their own.

        Raises:
            ValueError: if the activation is neither linear, softmax nor sigmoid.
        """
        outputs = np.asarray(outputs, "float64")
        activation = keras.activations.get(self.activation).__name__
        if activation in ("softmax", "sigmoid"):
            return outputs
        if activation != "linear":
            raise ValueError(
                "Only logits, a softmax and a sigmoid can be read as probabilities. "
                f"Received: activation={activation}"
            )
        exponentials = np.exp(outputs - outputs.max(axis=-1, keepdims=True))
        return exponentials / exponentials.sum(axis=-1, keepdims=True)

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
