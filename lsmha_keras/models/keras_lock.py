"""One lock for what Keras does not do in several threads at once."""

import functools
import threading

# Of the process and not of a model: a committee shares the variables of its members, and models
# have to stay copyable. Reentrant, as callbacks predict and a committee builds its members.
KERAS_LOCK = threading.RLock()


def locked(method):
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

    return alone
