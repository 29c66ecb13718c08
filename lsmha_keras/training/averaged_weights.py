"""Looks at a model with its averaged weights."""

import contextlib

import keras


@contextlib.contextmanager
def averaged_weights(model):
    """Puts the optimiser's moving average into the model, and the weights back afterwards.

    Does nothing when the optimiser keeps no average.

    Args:
        model: compiled `keras.Model` whose optimiser is built.

    Yields:
        The model.

    Example:

    ```python
    with averaged_weights(model):
        model.save_weights("averaged.weights.h5")
    ```
    """
    optimizer = getattr(model.optimizer, "inner_optimizer", model.optimizer)
    if not getattr(optimizer, "use_ema", False):
        yield model
        return
    # Keras's callback knows how on every backend and under a distribution strategy. It is used by
    # hand since its own schedule leaves swapped weights at `on_epoch_end`, where state is saved.
    swap = keras.callbacks.SwapEMAWeights()
    swap.set_model(model)
    swap.on_test_begin()
    try:
        yield model
    finally:
        swap.on_test_end()
