"""Thread safety: one lock for what Keras cannot do concurrently, and a record of trainings."""

import contextlib
import functools
import threading
from collections.abc import Callable
from typing import Any, TypeVar

import keras

from lsmha_keras.errors import RunError

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
