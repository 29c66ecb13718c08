"""Keeps a model's weights where Keras takes them away while it trains and predicts on JAX."""

import contextlib

import keras


def keeps_weights(cls):
    """Class decorator: an exception or Ctrl-C in `fit`, `evaluate` or `predict` costs no weights.

    On JAX, Keras 3.15 takes the weights out of a model for these and gives them to the compiled
    steps, which use them up. What ends between the steps, such as a NaN in the second batch of
    `predict`, leaves a model without weights. With this the steps get a copy.

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
        # Used up by a step that Ctrl-C has ended: those of the last epoch's end are still there.
        if not any(array.is_deleted() for array in arrays):
            super(cls, self).jax_state_sync()

    cls._get_jax_state, cls.jax_state_sync = _get_jax_state, jax_state_sync
    return cls


@contextlib.contextmanager
def state_of_its_own(model):
    """Inside, `keras.Model.evaluate` or `predict` may fail, or run in a callback of `fit`.

    Args:
        model: of a class with `keeps_weights`.
    """
    if keras.config.backend() != "jax":
        yield
        return
    model.jax_state_sync()  # what `fit` has learned, if it waits for this one
    try:
        yield
    except BaseException:
        # What the failed call has left would be given to the variables by a later one.
        model._jax_state, model._jax_state_synced = None, True
        raise
