"""Keeps a model's weights alive on JAX, where `fit`, `evaluate` and `predict` consume them."""

import contextlib

import keras


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
