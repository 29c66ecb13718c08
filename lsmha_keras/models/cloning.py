"""Lets `keras.models.clone_model` make a copy of the same class, preprocessing included."""

import functools

import keras

from lsmha_keras.errors import InputError


def cloneable(cls):
    """Class decorator: `keras.models.clone_model` clones models of the class by their configs.

    Keras (3.15.1) wraps its argument `clone_function` before it looks whether one was given, and so
    never reaches the `from_config` of a functional model: it copies the graph, gives it to the
    constructor if that is declared to take any arguments, and makes a plain functional model of it,
    without a preprocessor, otherwise. This declares the constructor so, and answers such a call
    with a model built from the config. It can go with the version that looks before it wraps.

    Args:
        cls: class of functional Keras models with a `get_config` of its own and a constructor that
            demands an argument: of another, Keras tries to write down the arguments by itself, and
            fails over the wrapper.

    Returns:
        `cls`.
    """
    init = cls.__init__

    @functools.wraps(init)  # `inspect.signature` shows the arguments; Keras does not look there.
    def __init__(self, *args, **kwargs):
        if _original(args) is None:  # else `__new__` has built it
            init(self, *args, **kwargs)

    @functools.wraps(init)
    def __new__(kind, *args, **kwargs):
        original = _original(args)
        if original is None:
            return super(cls, kind).__new__(kind, *args, **kwargs)
        # Keras compiles it afterwards, if the original is.
        return kind.from_config({**original.get_config(), "compile": False})

    def _run_through_graph(self, inputs, **functions):
        run = super(cls, self)._run_through_graph
        if set(functions) != {"operation_fn", "call_fn"}:  # Only `clone_model` gives both.
            return run(inputs, **functions)
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
    """Returns the model of whose graph the outputs are a copy, or `None`."""
    return getattr(args[1], "_lsmha_original", None) if len(args) == 2 else None


def _are_alike(pairs):
    """Whether each layer has a copy of its own, of the same class and config."""
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
