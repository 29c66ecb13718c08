"""Makes `keras.models.clone_model` keep a model's class and preprocessing."""

import functools

import keras

from lsmha_keras.errors import InputError


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

    def _run_through_graph(self, inputs, **functions):
        run = super(cls, self)._run_through_graph
        if set(functions) != {"operation_fn", "call_fn"}:  # only `clone_model` passes both
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
