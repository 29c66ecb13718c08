"""Initializers, regularizers and constraints of weights, as `keras.layers.Dense` takes them."""

import keras

_MODULES = {
    "initializer": keras.initializers,
    "regularizer": keras.regularizers,
    "constraint": keras.constraints,
}


def set_weight_arguments(layer, **arguments):
    """Makes attributes of a layer's arguments, objects of Keras from whatever stands for them.

    Args:
        layer: `keras.layers.Layer`.
        **arguments: by name, such as `kernel_regularizer="l2"`. The last word of a name says what
            it is.
    """
    for name, value in arguments.items():
        setattr(layer, name, _module(name).get(value))


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
        name: value.clone() if isinstance(value, keras.initializers.Initializer) else value
        for name, value in values.items()
    }


def _names(layer, weights):
    names = [f"{weight}_{kind}" for weight in weights for kind in _MODULES]
    return [name for name in names if hasattr(layer, name)]


def _module(name):
    return _MODULES[name.rpartition("_")[2]]
