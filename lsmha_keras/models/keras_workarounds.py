"""Ways around limits of Keras 3.15 and KerasHub 0.32: threads, weights, clones, devices."""

import contextlib
import functools
import threading
import weakref
from collections.abc import Callable
from typing import Any, TypeVar

import keras

from lsmha_keras.errors import InputError, RunError

_THREADS: dict[int, int] = {}  # id of a variable -> the thread that trains it
# One lock for the process, not one per model: a committee shares its members' variables, and models
# must stay copyable. Reentrant, because callbacks predict and a committee builds its members.
KERAS_LOCK = threading.RLock()

F = TypeVar("F", bound=Callable[..., Any])


def locked(method: F) -> F:
    """Decorator: only one thread at a time runs a method that has it.

    KerasHub 0.32 and Keras 3.15 change the base classes of a model's class whenever a model is
    built; a thread that builds or runs one at that moment fails. On JAX, Keras moves the weights
    out of a model while it predicts or evaluates, and loses them if a second thread interferes.

    Args:
        method: method, or a function for `classmethod`. Not an `__init__`: Keras inspects its
            signature.

    Returns:
        The method, which holds the lock while it runs.
    """

    @functools.wraps(method)
    def alone(self, *args, **kwargs):
        with KERAS_LOCK:
            return method(self, *args, **kwargs)

    return alone  # type: ignore[return-value]


@contextlib.contextmanager
def trained_here(model):
    """Marks a model's weights as being trained by this thread.

    Args:
        model: Keras model.

    Raises:
        RuntimeError: if another thread trains them.
    """
    with KERAS_LOCK:
        refuse_if_trained(model, "fit")
        marked = [id(v) for v in model.variables if id(v) not in _THREADS]
        _THREADS.update(dict.fromkeys(marked, threading.get_ident()))
    try:
        yield
    finally:
        for key in marked:
            del _THREADS[key]


def refuse_if_trained(model, method):
    """Refuses a call that would go wrong while another thread trains the same weights.

    `evaluate` would reset the metrics of that training. On JAX, `predict` would restore the weights
    of the last epoch after the next one has ended.

    Args:
        model: Keras model.
        method: str, `"fit"`, `"evaluate"` or `"predict"`.

    Raises:
        RuntimeError: if another thread trains them and the method cannot run at the same time.
    """
    if method == "predict" and keras.config.backend() != "jax":
        return
    here = threading.get_ident()
    if any(_THREADS.get(id(variable), here) != here for variable in model.variables):
        raise RunError(
            f"`{method}` cannot run while another thread trains the same weights: wait until its "
            "`fit` has ended, or use a copy made beforehand, `type(model).from_config("
            f"model.get_config())` with the weights set. Received: {method} of {model.name!r}"
        )


def keeps_weights(cls):
    """Class decorator: an exception or Ctrl-C in `fit`, `evaluate` or `predict` loses no weights.

    On JAX, Keras 3.15 moves the weights out of the model and donates them to the compiled steps. An
    exception between steps, such as a NaN in the second batch of `predict`, would leave a model
    without weights. This passes a copy to the steps.

    Args:
        cls: class of Keras models.

    Returns:
        `cls`, on backends other than JAX unchanged.
    """
    if keras.config.backend() != "jax":
        return cls
    import jax

    copy = jax.jit(lambda state: jax.tree.map(jax.numpy.copy, state))

    def _get_jax_state(self, *args, purge_model_variables=False, **kwargs):
        state = super(cls, self)._get_jax_state(*args, **kwargs)
        return copy(state) if purge_model_variables else state

    def jax_state_sync(self):
        arrays = keras.tree.flatten(getattr(self, "_jax_state", None) or {})
        # Donated to a step that Ctrl-C has ended: the variables still hold the last epoch's values.
        if not any(array.is_deleted() for array in arrays):
            super(cls, self).jax_state_sync()

    cls._get_jax_state, cls.jax_state_sync = _get_jax_state, jax_state_sync
    return cls


@contextlib.contextmanager
def state_of_its_own(model):
    """Lets `keras.Model.evaluate` or `predict` fail, or run in a callback of `fit`, safely.

    Args:
        model: model of a class with `keeps_weights`.
    """
    if keras.config.backend() != "jax":
        yield
        return
    model.jax_state_sync()  # a `fit` that waits for this call holds newer weights
    try:
        yield
    except BaseException:
        # A later call would write the failed call's state to the variables.
        model._jax_state, model._jax_state_synced = None, True
        raise


def traces_once(cls):
    """Class decorator: TensorFlow traces the first step of `fit` and `evaluate` once, not twice.

    Keras 3.15 creates the variables of optimizer and metrics while TensorFlow traces a step. A
    function that creates variables is traced twice, and each variable adds a conditional to the
    first graph. On JAX and PyTorch, and under a distribution strategy, Keras creates them
    beforehand.

    Args:
        cls: class of Keras models whose output is `(batch, num_classes)`.

    Returns:
        `cls`, on backends other than TensorFlow unchanged.
    """
    if keras.config.backend() != "tensorflow":
        return cls

    def make_train_function(self, force=False):
        before = self.train_function
        super(cls, self).make_train_function(force)
        if self.train_function is not before:
            self.train_function = _after_creation(self, self.train_function, self.optimizer)

    def make_test_function(self, force=False):
        before = self.test_function
        super(cls, self).make_test_function(force)
        if self.test_function is not before:
            self.test_function = _after_creation(self, self.test_function)

    cls.make_train_function, cls.make_test_function = make_train_function, make_test_function
    return cls


def _after_creation(model, function, optimizer=None):
    owner = weakref.ref(model)

    def run(iterator):
        _create_state(owner(), getattr(iterator, "element_spec", None), optimizer)
        return function(iterator)

    return run


def _create_state(model, spec, optimizer):
    import tensorflow as tf

    if tf.distribute.has_strategy():
        return  # Keras has created the variables.
    if optimizer is not None and not optimizer.built:
        optimizer.build(model.trainable_variables)
    if not isinstance(spec, tuple) or all(getattr(m, "built", True) for m in model.metrics):
        return
    # The kind of accuracy depends on whether labels are one-hot.
    _, y, _ = keras.utils.unpack_x_y_sample_weight(spec)
    if isinstance(y, tf.TensorSpec) and y.shape.rank and None not in y.shape[1:]:
        labels = tf.zeros([1, *y.shape[1:]], y.dtype)
        model.compute_metrics(None, labels, tf.zeros([1, model.num_classes]))
        model.reset_metrics()


def register_torch_parameters(model):
    """Registers all variables of a model as PyTorch parameters; does nothing on other backends.

    KerasHub 0.32 bypasses PyTorch's attribute tracking while it builds a model, so `parameters()`
    is empty: a training loop trains nothing, and `zero_grad` in Keras's own `fit` resets nothing,
    so that gradients add up from step to step.

    Args:
        model: a built Keras model.
    """
    if keras.config.backend() != "torch":
        return
    import torch

    values = {}
    for variable in model.variables:
        # Members of a committee may have variables of the same path.
        path, number = variable.path, 1
        while path in values:
            path, number = f"{variable.path}_{number}", number + 1
        values[path] = variable.value
    known = model._modules.get("_torch_params")
    if known is None or [*map(id, known.values())] != [*map(id, values.values())]:
        model._torch_params = torch.nn.ParameterDict(values)  # where Keras looks it up


def torch_parameters_up_to_date(cls):
    """Class decorator: `named_parameters` and `state_dict` see variables created after building.

    Quantisation and LoRA replace and add variables.

    Args:
        cls: class of Keras models that call `register_torch_parameters` once they are built.

    Returns:
        `cls`, on backends other than torch unchanged.
    """
    if keras.config.backend() != "torch":
        return cls

    def renewing(name):
        def method(self, *args, **kwargs):
            register_torch_parameters(self)
            return getattr(super(cls, self), name)(*args, **kwargs)

        method.__name__ = name
        return method

    # `parameters`, `zero_grad` and `DistributedDataParallel` call `named_parameters`.
    for name in ("named_parameters", "state_dict", "load_state_dict"):
        setattr(cls, name, renewing(name))
    return cls


def cloneable(cls):
    """Class decorator: `keras.models.clone_model` clones models of the class by their configs.

    Keras 3.15.1 wraps its argument `clone_function` before it checks whether one was given, so it
    never reaches the `from_config` of a functional model. It copies the graph instead and passes
    that to the constructor if the signature is `(*args, **kwargs)`; otherwise it makes a plain
    functional model without a preprocessor. This gives the constructor that signature and answers
    such a call with a model built from the config. Remove it once Keras checks before it wraps.

    Args:
        cls: class of functional Keras models with its own `get_config` and a constructor that has a
            required argument. Without one, Keras tries to record the arguments itself and fails on
            the wrapper.

    Returns:
        `cls`.
    """
    init = cls.__init__

    @functools.wraps(init)  # for `inspect.signature`; Keras looks at the real one
    def __init__(self, *args, **kwargs):
        if _original(args) is None:  # otherwise `__new__` has built the model
            init(self, *args, **kwargs)

    @functools.wraps(init)
    def __new__(kind, *args, **kwargs):
        original = _original(args)
        if original is None:
            return super(cls, kind).__new__(kind, *args, **kwargs)
        # Keras compiles the clone afterwards if the original is compiled.
        return kind.from_config({**original.get_config(), "compile": False})

    def _run_through_graph(self, inputs, *recorder, **functions):
        run = super(cls, self)._run_through_graph
        # Only `clone_model` passes both by name; a decorated subclass passes its own recorder.
        if recorder or set(functions) != {"operation_fn", "call_fn"}:
            return run(inputs, *recorder, **functions)
        clones = {}

        def recorded(operation):
            clone = functions["operation_fn"](operation)
            clones[id(operation)] = (operation, clone)
            return clone

        outputs = run(inputs, recorded, functions["call_fn"])
        whole = getattr(type(self).__init__, "builds_clones", False)
        whole = whole and functions["call_fn"] is None
        if not whole or not _are_alike(clones.values()) or not _are_new_inputs(inputs, self.inputs):
            raise InputError(
                "A clone with other layers or inputs would lose its preprocessing: clone the plain "
                "model `keras.Model(model.input, model.output)`, or copy with "
                f"`type(model).from_config(model.get_config())`. Received: {type(self).__name__}"
            )
        outputs._lsmha_original = self
        return outputs

    __init__.builds_clones = True
    cls.__init__, cls.__new__, cls._run_through_graph = __init__, __new__, _run_through_graph
    return cls


def _original(args):
    """Returns the model whose graph was copied, or `None`."""
    return getattr(args[1], "_lsmha_original", None) if len(args) == 2 else None


def _are_alike(pairs):
    """Returns whether each layer has its own copy, of the same class and config."""
    return all(
        clone is not layer and type(clone) is type(layer) and clone.get_config() == config
        for layer, clone in pairs
        for config in [layer.get_config()]
    )


def _are_new_inputs(given, own):
    return all(
        isinstance(tensor._keras_history.operation, keras.layers.InputLayer)
        and (tensor.shape, tensor.dtype) == (expected.shape, expected.dtype)
        for tensor, expected in zip(keras.tree.flatten(given), own, strict=True)
    )


def devices_per_batch(model):
    """Returns the number of devices among which Keras divides each batch; 1 if it does not.

    Args:
        model: Keras model. TensorFlow uses the strategy in whose scope the model was made, JAX the
            distribution that is set.
    """
    if keras.config.backend() == "tensorflow":
        return model.distribute_strategy.num_replicas_in_sync
    distribution = keras.distribution.distribution()
    name = getattr(distribution, "batch_dim_name", None)
    if name is None:
        return 1
    mesh = distribution.device_mesh
    return mesh.shape[mesh.axis_names.index(name)]


def check_shares(count, devices):
    """Refuses a batch that cannot be divided evenly.

    JAX needs equal shares. TensorFlow's `MirroredStrategy` averages the devices' gradients, so that
    images in a smaller share would count more; it fails if a device gets no images or the first
    batch is uneven (Keras 3.15.1, TensorFlow 2.21).

    Args:
        count: int, number of images of the batch.
        devices: int, from `devices_per_batch`.

    Raises:
        ValueError: if `count` is not a multiple of `devices`.
    """
    if count % devices:
        raise InputError(
            f"{devices} devices share each batch evenly: `batch_size` and the number of images "
            f"must be multiples of {devices}. `predict` on arrays and `lsmha_keras.evaluate` pad "
            "the last batch themselves. "
            f"Received: a batch of {count} images"
        )


def quantization_configs(model):
    """Returns the custom quantisation configurations of a model's layers, a dict by their paths."""
    return {
        layer.path: keras.saving.serialize_keras_object(layer.quantization_config)
        for layer in model._flatten_layers()
        if getattr(layer, "quantization_config", None) is not None
    }


def restore_quantization(model, configurations):
    """Gives a model's layers their configurations of quantisation back; returns the model."""
    for layer in model._flatten_layers():
        if layer.path in configurations:
            # Keras 3.15 restores them only for layers that are saved one by one.
            found = keras.saving.deserialize_keras_object(configurations[layer.path])
            layer.quantization_config = found
            layer.inputs_quantizer = found.activation_quantizer
    return model
