"""Models in several threads: one lock for what Keras cannot do at once, and who trains what."""

import contextlib
import functools
import threading
from collections.abc import Callable
from typing import Any, TypeVar

import keras

from lsmha_keras.errors import RunError

_THREADS: dict[int, int] = {}  # id of a variable -> the thread that trains it
# Of the process and not of a model: a committee shares the variables of its members, and models
# have to stay copyable. Reentrant, as callbacks predict and a committee builds its members.
KERAS_LOCK = threading.RLock()

F = TypeVar("F", bound=Callable[..., Any])


def locked(method: F) -> F:
    """Decorator: calls of such methods wait for each other, in whatever thread they are made.

    KerasHub 0.32 and Keras 3.15 change the base classes of a model's class whenever a model is
    built; another thread that builds or runs one meanwhile fails. On JAX, Keras takes the variables
    away from a model while that predicts or evaluates, and for good if a second thread comes in
    between.

    Args:
        method: method, or what `classmethod` takes. Not an `__init__`, whose own arguments Keras
            looks up.

    Returns:
        The method, run with the lock held.
    """

    @functools.wraps(method)
    def alone(self, *args, **kwargs):
        with KERAS_LOCK:
            return method(self, *args, **kwargs)

    return alone  # type: ignore[return-value]


@contextlib.contextmanager
def trained_here(model):
    """Marks a model's weights as trained by this thread, once no other one uses them.

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
    """Refuses what goes wrong while another thread trains the same weights.

    `evaluate` would begin the metrics of that training anew. On JAX `predict` would give the model
    the weights of the last epoch back after the next one has ended.

    Args:
        model: Keras model.
        method: str, `"fit"`, `"evaluate"` or `"predict"`.

    Raises:
        RuntimeError: if another thread trains them, and the method cannot run beside that.
    """
    if method == "predict" and keras.config.backend() != "jax":
        return
    here = threading.get_ident()
    if any(_THREADS.get(id(variable), here) != here for variable in model.variables):
        raise RunError(
            f"`{method}` cannot run while another thread trains the same weights: wait until its "
            "`fit` has ended, or use a copy made before, `type(model).from_config("
            f"model.get_config())` with the weights set. Received: {method} of {model.name!r}"
        )
