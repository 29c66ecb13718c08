"""Initializers, regularizers and constraints of weights, as `keras.layers.Dense` takes them."""

import contextvars

import keras
import numpy as np

from lsmha_keras.errors import InputError

_MODULES = {
    "initializer": keras.initializers,
    "regularizer": keras.regularizers,
    "constraint": keras.constraints,
}
# Initial value of weights that are to be loaded, exact in all precisions: whole arrays of it are
# those that were not.
_MARK = 2.0**-20
# Whether this thread builds a model whose weights are loaded right after.
_LOADED = contextvars.ContextVar("weights are loaded", default=False)


def set_weight_arguments(layer, default_stddev=None, **arguments):
    """Makes attributes of a layer's arguments, objects of Keras from whatever stands for them.

    Args:
        layer: `keras.layers.Layer`.
        default_stddev: float, standard deviation of the truncated normal in the place of
            initializers that are `None`, but for those of biases; `None` leaves all to Keras.
        **arguments: by name, such as `kernel_regularizer="l2"`; a constructor may pass its
            `locals()`. The last word of a name says what it is, and other names are left alone.
    """
    for name, value in arguments.items():
        weight, _, kind = name.rpartition("_")
        if not weight or kind not in _MODULES:
            continue
        is_default = value is None and kind == "initializer" and weight != "bias"
        if is_default and default_stddev is not None:
            value = keras.initializers.TruncatedNormal(stddev=default_stddev)
        setattr(layer, name, _MODULES[kind].get(value))


def weight_config(layer, *weights):
    """Returns the entries of `get_config` for the arguments of some weights.

    Args:
        layer: layer with the attributes that `set_weight_arguments` made.
        *weights: kinds of weights, such as `"kernel"`.
    """
    return {name: _module(name).serialize(getattr(layer, name)) for name in _names(layer, weights)}


def weight_arguments(layer, *weights):
    """Returns the arguments of some weights, for a layer inside of `layer`.

    Initializers are copies: one that is used twice would draw the same values twice.

    Args:
        layer: layer with the attributes that `set_weight_arguments` made.
        *weights: kinds of weights, such as `"kernel"`.
    """
    values = {name: getattr(layer, name) for name in _names(layer, weights)}
    return {
        name: initial_values(value.clone())
        if isinstance(value, keras.initializers.Initializer)
        else value
        for name, value in values.items()
    }


def initial_values(initializer):
    """Returns an initializer, or what stands for it while `built_with_weights` builds a model."""
    if isinstance(initializer, _Overwritten) or not _LOADED.get():
        return initializer
    return _Overwritten(initializer)


def built_with_weights(build):
    """Builds a model and loads its weights, without drawing initial values before.

    Drawing takes most of the time of loading a preset on JAX, which compiles a program for every
    shape.

    Args:
        build: function without arguments that returns the model with its weights loaded.

    Returns:
        The model; its layers have the initializers that they would have otherwise.

    Raises:
        ValueError: if weights were left out, of which Keras warns at most.
    """
    token = _LOADED.set(True)
    try:
        model = build()
    finally:
        _LOADED.reset(token)
    for layer in model._flatten_layers():
        for name, value in list(vars(layer).items()):
            if isinstance(value, _Overwritten):
                setattr(layer, name, value.initializer)
    missing = [v.path for v in model.weights if (keras.ops.convert_to_numpy(v) == _MARK).all()]
    if missing:
        raise InputError(
            "The saved weights are not complete; save or download the preset again. Received: no "
            f"values of {', '.join(missing)}"
        )
    return model


class _Overwritten(keras.initializers.Initializer):
    """Gives `_MARK` in the place of the values of another initializer."""

    def __init__(self, initializer):
        self.initializer = initializer

    def __call__(self, shape, dtype=None):
        # From NumPy: on JAX a constant array has a program of its own for every shape, too.
        return keras.ops.convert_to_tensor(np.full(shape, _MARK, "float32"), dtype=dtype)

    def clone(self):
        return _Overwritten(self.initializer.clone())


def _names(layer, weights):
    names = [f"{weight}_{kind}" for weight in weights for kind in _MODULES]
    return [name for name in names if hasattr(layer, name)]


def _module(name):
    return _MODULES[name.rpartition("_")[2]]
