"""Base class of classifiers that take raw images."""

import contextlib
import os
import types
import weakref

import keras
import keras_hub
import numpy as np

from lsmha_keras.errors import InputError
from lsmha_keras.models.keras_workarounds import (
    check_shares,
    devices_per_batch,
    keeps_weights,
    locked,
    refuse_if_trained,
    state_of_its_own,
    torch_parameters_up_to_date,
    traces_once,
    trained_here,
)
from lsmha_keras.models.preprocessed_batches import (
    PreprocessedBatches,
    check_counts,
    is_grain,
    is_tf,
    is_tf_dataset,
    is_torch_loader,
    preprocessed_dataset,
    preprocessed_generator,
    preprocessed_grain,
    preprocessed_loader,
    released,
    to_numpy,
)
from lsmha_keras.probabilities import probabilities
from lsmha_keras.progress import SILENT, fit_progress, progress_style
from lsmha_keras.sample_checks import check_finite, check_image_values, warn_of_fractions


@keeps_weights
@traces_once
@torch_parameters_up_to_date
class RawImageClassifier(keras_hub.models.ImageClassifier):
    """Base of classifiers that train and predict on raw images with values 0 to 255.

    `fit`, `evaluate` and `predict` take arrays, lists of images of different sizes,
    `keras.utils.PyDataset`, `tf.data.Dataset`, PyTorch's and Grain's `DataLoader`, Grain's datasets
    and Python generators, and pass the images through `preprocess_samples`. With `verbose="auto"`
    they show a bar in a terminal and lines without control characters elsewhere. `evaluate` and
    `predict` may be called from several threads: they wait for each other. While one thread runs
    `fit`, others cannot `evaluate` the same weights, nor `predict` with them on JAX. A subclass
    builds the model and sets `num_classes`, `activation`, `class_names` and `preprocessor`.
    """

    _warned = False  # about images with values in 0 .. 1
    _data_error = None  # the last error that `preprocess_samples` raised

    def compile(
        self, optimizer="auto", loss="auto", *, metrics="auto", jit_compile="auto", **kwargs
    ):
        """Configures training; as `keras_hub.models.ImageClassifier.compile`.

        `metrics="auto"` means accuracy, for integer or one-hot labels. `jit_compile="auto"` does
        not use XLA on TensorFlow without a GPU, because XLA's convolutions are slower there.
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
            config["jit_compile"] = "auto"  # decided anew by the machine and backend that load it
        return config

    def compile_from_config(self, config):
        """Compiles as the saved model was; Keras 3.15 expects this of classes with a `compile`."""
        self.compile(**keras.saving.deserialize_keras_object(config))
        if self.optimizer is not None:
            self.optimizer.build(self.trainable_variables)  # so that its state can be loaded

    def preprocess_samples(self, x, y=None, sample_weight=None):
        """Checks images and labels, then runs the preprocessor.

        Images and labels in a `tf.data` pipeline are checked while it runs. A model warns once
        about images with values in 0 .. 1. Elements `{"image": ..., "label": ...}`, as from TFDS,
        are unpacked.
        """
        if isinstance(x, dict) and {"image", "label"} <= set(x) and y is None:
            x, y = x["image"], x["label"]
        with self._noting_errors():
            if self.preprocessor is not None:
                x = self._checked(x)
            y = self._checked_rows(y, type(self)._check_labels)
            sample_weight = self._checked_rows(sample_weight, _check_weights)
            return super().preprocess_samples(x, y, sample_weight)

    @contextlib.contextmanager
    def _noting_errors(self):
        try:
            yield
        except ValueError as error:
            self._data_error = error
            raise

    @contextlib.contextmanager
    def _plain_errors(self):
        """Raises errors about data unwrapped; TensorFlow would wrap them in pages of its own."""
        self._data_error = None
        try:
            yield
        except Exception as error:
            found, self._data_error = self._data_error, None
            if found is None or found is error:
                raise
            raise found from None
        # With several devices, TensorFlow 2.21 ends the data at an error without raising it.
        if self._data_error is not None and devices_per_batch(self) > 1:
            raise self._data_error

    def _checked(self, x):
        if isinstance(x, np.ndarray):
            check_image_values(x)
            if not self._warned:
                self._warned = warn_of_fractions(x)
        elif is_tf(x) and x.dtype.is_floating:
            import tensorflow as tf

            # Minimum and maximum suffice for the checks, and are all that leaves the graph.
            ends = tf.stack([tf.reduce_min(x), tf.reduce_max(x)])
            x = self.checked_in_graph(x, type(self)._checked, ends)
        return x

    def _checked_rows(self, values, check):
        """Checks labels or sample weights, now or when the `tf.data` pipeline runs."""
        if isinstance(values, np.ndarray):
            check(self, values)
        return self.checked_in_graph(values, check, values) if is_tf(values) else values

    def checked_in_graph(self, tensor, check, values):
        """Returns a tensor of a `tf.data` pipeline that depends on a check of `values`."""
        import tensorflow as tf

        owner = weakref.ref(self)  # TensorFlow never releases the function

        def run(values):
            model = owner()
            with model._noting_errors():
                check(model, values)
            return np.int32(0)

        with tf.control_dependencies([tf.numpy_function(run, [values], tf.int32)]):
            return tf.identity(tensor)

    def _check_labels(self, y):
        if y.dtype.kind in "US" or (y.dtype.kind == "O" and isinstance(y.flat[0], (str, bytes))):
            raise InputError(
                "Labels must be numbers, not names: convert them with `names, labels = np.unique("
                f"labels, return_inverse=True)`. Received: labels such as {str(y.flat[0])!r}"
            )
        check_finite("label", y)
        indices = y[:, 0] if y.ndim == 2 and y.shape[1] == 1 else y
        if indices.ndim == 1 and y.dtype.kind in "iuf" and y.size and self._takes_indices():
            if (broken := indices[indices != np.floor(indices)]).size:
                raise InputError(
                    "Labels of sparse categorical losses must be whole numbers, the indices of "
                    f"classes. Received: label {broken[0]}"
                )
            if y.min() < 0 or y.max() >= self.num_classes:
                raise InputError(
                    f"Labels must be from 0 to {self.num_classes - 1}, as the model has "
                    f"{self.num_classes} classes. Received: labels from {y.min()} to {y.max()}"
                )
        elif y.ndim == 2 and y.shape[1] not in (1, self.num_classes):
            raise InputError(
                f"One-hot labels must have {self.num_classes} columns, one per class. "
                f"Received: labels of shape {y.shape}"
            )

    def _takes_indices(self):
        """Returns whether the loss takes class indices as labels."""
        loss = self.loss if isinstance(self.loss, str) else getattr(self.loss, "name", "")
        return "sparse_categorical" in (loss or getattr(self.loss, "__name__", ""))

    def _as_batch(self, x):
        """Adds a missing batch dimension, or the missing channel dimension of grey images."""
        if not hasattr(x, "__array__") or len(x.shape) != 3:
            return x
        channels = self.image_shape[-1]
        if x.shape[-1] == channels:
            return to_numpy(x)[None]
        return to_numpy(x)[..., None] if channels == 1 else x

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

        `shuffle=False` keeps the order. Of a `PyDataset`, and of arrays with `shuffle="batch"`, the
        order of the batches is shuffled. `verbose=2` prints one line per epoch.
        """
        check_counts(kwargs)
        kwargs |= fit_progress(kwargs.get("verbose", "auto"), kwargs.get("callbacks"))
        if not self._is_known(x):
            with trained_here(self), self._plain_errors():
                return super().fit(
                    x, y, batch_size, sample_weight, validation_data, validation_split, **kwargs
                )
        if validation_split and validation_data is None:
            (x, y, sample_weight), validation_data = _split((x, y, sample_weight), validation_split)
        if isinstance(validation_data, (tuple, list)):
            held_out = keras.utils.unpack_x_y_sample_weight(tuple(validation_data))
            size = kwargs.get("validation_batch_size") or batch_size
            validation_data = self._preprocessed(*held_out, batch_size=size)
        elif self._is_known(validation_data):
            validation_data = self._preprocessed(validation_data)
        # We shuffle images, Keras shuffles batches, and other datasets shuffle themselves.
        by_image = _is_array(x) and shuffle and shuffle != "batch"
        batches = self._preprocessed(x, y, sample_weight, batch_size, shuffle=bool(by_image))
        in_batches = isinstance(batches, PreprocessedBatches) and not by_image
        kwargs["shuffle"] = bool(shuffle) and in_batches
        with trained_here(self), self._plain_errors(), released(batches, validation_data):
            return keras.Model.fit(self, batches, validation_data=validation_data, **kwargs)

    @locked
    def evaluate(self, x=None, y=None, batch_size=None, sample_weight=None, **kwargs):
        """Evaluates; as `keras.Model.evaluate`, on raw images."""
        check_counts(kwargs)
        kwargs["verbose"] = progress_style(kwargs.get("verbose", "auto"))
        cached = kwargs.get("_use_cached_eval_dataset", False)  # set by Keras's `fit`
        refuse_if_trained(self, "evaluate")
        with state_of_its_own(self), self._plain_errors():
            if cached or not self._is_known(x):
                return super().evaluate(x, y, batch_size, sample_weight, **kwargs)
            batches = self._preprocessed(x, y, sample_weight, batch_size)
            with released(batches):
                return keras.Model.evaluate(self, batches, **kwargs)

    @locked
    def predict(self, x, batch_size=None, **kwargs):
        """Predicts; as `keras.Model.predict`, on raw images, or on one `(height, width, channels)`.

        Grey images may lack the channel dimension.
        """
        check_counts(kwargs)
        kwargs["verbose"] = progress_style(kwargs.get("verbose", "auto"))
        refuse_if_trained(self, "predict")
        with state_of_its_own(self), self._plain_errors():
            if not self._is_known(x):
                return super().predict(x, batch_size=batch_size, **kwargs)
            x, count = _filled_up(self._as_batch(x), devices_per_batch(self))
            batches = self._preprocessed(x, batch_size=batch_size)
            if kwargs.keys() == {"verbose"} and self._needs_no_pipeline(batches):
                return self._predict_one_batch(batches[0], **kwargs)
            with released(batches):
                outputs = keras.Model.predict(self, batches, **kwargs)
            return outputs if count is None else outputs[:count]

    def _needs_no_pipeline(self, batches):
        """Returns whether `predict` can skip `tf.data`, which costs several times the model.

        Keras handles callbacks, `steps` and the replicas of a distribution strategy.
        """
        return (
            keras.config.backend() == "tensorflow"
            and isinstance(batches, PreprocessedBatches)
            and batches.num_batches == 1
            and self.distribute_strategy.num_replicas_in_sync == 1
        )

    def _predict_one_batch(self, batch, verbose):
        """As `keras.Model.predict` for one batch, with the same compiled step."""
        shown = keras.callbacks.CallbackList(
            add_progbar=verbose != SILENT, verbose=verbose, epochs=1, steps=1, model=self
        )
        shown.on_predict_begin()
        shown.on_predict_batch_begin(0)
        outputs = keras.Model.predict_on_batch(self, batch)
        shown.on_predict_batch_end(0)
        shown.on_predict_end()
        return outputs

    def probabilities(self, outputs):
        """Turns the outputs of `predict` into probabilities, whatever the model's activation.

        Args:
            outputs: `(images, classes)` array.

        Returns:
            `(images, classes)` float64 array. Rows add up to 1, except for a sigmoid, whose outputs
            are independent probabilities.

        Raises:
            ValueError: if the activation is neither linear, softmax nor sigmoid.
        """
        return probabilities(outputs, keras.activations.get(self.activation).__name__)

    def _is_known(self, x):
        """Returns whether `_preprocessed` takes `x`; KerasHub handles the rest."""
        if isinstance(x, (str, os.PathLike)):
            raise InputError(
                "A model takes images, not the name of a dataset: pass "
                "`lsmha_keras.load_dataset(name)`, or call `lsmha_keras.evaluate(model, name)`. "
                f"Received: {str(x)!r}"
            )
        kinds = (keras.utils.PyDataset, types.GeneratorType)
        if _is_array(x) or isinstance(x, kinds):
            return True
        return is_torch_loader(x) or is_grain(x) or is_tf_dataset(x)

    @property
    def _check_count(self):
        # Asked here, because data are read by other threads, for which no strategy is set.
        devices = devices_per_batch(self)
        owner = weakref.ref(self)

        def check(count):
            with owner()._noting_errors():
                check_shares(count, devices)

        return check

    def _preprocessed(self, x, y=None, sample_weight=None, batch_size=None, shuffle=False):
        """Returns data for Keras that pass through the preprocessor."""
        owner = weakref.ref(self)  # TensorFlow never releases datasets and what they hold

        def preprocess(*batch):
            return owner().preprocess_samples(*batch)

        check = self._check_count
        if _is_array(x) or isinstance(x, keras.utils.PyDataset):
            return PreprocessedBatches(preprocess, x, y, sample_weight, batch_size, shuffle, check)
        if not (y is None and sample_weight is None and batch_size is None):
            raise InputError(
                f"A {type(x).__name__} supplies `y`, `sample_weight` and the batches itself: pass "
                f"none of them. Received: y of type {type(y).__name__}, sample_weight of type "
                f"{type(sample_weight).__name__}, batch_size={batch_size}"
            )
        if isinstance(x, types.GeneratorType):
            return preprocessed_generator(preprocess, x, check)
        if is_torch_loader(x):
            return preprocessed_loader(preprocess, x, check)
        if is_grain(x):
            return preprocessed_grain(preprocess, x, check)
        return preprocessed_dataset(self, x, preprocess)


def _check_weights(model, sample_weight):
    check_finite("sample weight", sample_weight)


def _filled_up(x, devices):
    """Repeats the last image until the devices divide the count; returns the former count."""
    if devices == 1 or not _is_array(x) or not len(x) % devices:
        return x, None
    missing = -len(x) % devices
    if isinstance(x, (list, tuple)):
        return [*x, *[x[-1]] * missing], len(x)
    x = to_numpy(x)
    return np.concatenate([x, np.repeat(x[-1:], missing, axis=0)]), len(x)


def _is_array(x):
    return isinstance(x, (list, tuple)) or hasattr(x, "__array__")


def _split(arrays, validation_split):
    """Holds out the last fraction of arrays, as `keras.Model.fit` does."""
    x = arrays[0]
    if not _is_array(x) or not 0 < validation_split < 1:
        raise InputError(
            "`validation_split` must be in (0, 1) and needs arrays, not a dataset. "
            f"Received: validation_split={validation_split}, x of type {type(x).__name__}"
        )
    cut = int(len(x) * (1 - validation_split))
    if cut in (0, len(x)):
        raise InputError(
            f"`validation_split={validation_split}` leaves no data for training or for validation. "
            f"Received: {len(x)} images"
        )
    parts = [None if a is None else (a[:cut], a[cut:]) for a in arrays]
    return tuple(tuple(None if p is None else p[i] for p in parts) for i in range(2))
