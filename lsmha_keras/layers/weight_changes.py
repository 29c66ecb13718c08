"""Lets a caller change the attention weights of the layers it runs, to take derivatives by them."""

import contextlib
import contextvars

# Of a thread and its call, so that a model that others use at the same time is left alone.
_CHANGE: contextvars.ContextVar = contextvars.ContextVar("change", default=None)


@contextlib.contextmanager
def changing_weights(change):
    """Changes the attention weights of every layer that is called inside.

    Layers must be asked for their scores: without them, they may not compute any weights. The
    calls must not be compiled, or the change would stay in the program.

    Args:
        change: function of the weights `(batch, heads, queries, keys)`, float32, as a core computes
            them, that returns others of the same shape.

    Example:

    ```python
    from lsmha_keras.layers.weight_changes import changing_weights

    layer, tokens = lsmha_keras.LargeScaleMultiHeadAttention(2), np.ones((1, 4, 8), "float32")
    with changing_weights(lambda weights: 0 * weights):
        layer(tokens, return_attention_scores=True)
    ```
    """
    token = _CHANGE.set(change)
    try:
        yield
    finally:
        _CHANGE.reset(token)


def change_weights(weights):
    """Returns attention weights as the caller of the layer wants them; see `changing_weights`."""
    change = _CHANGE.get()
    return weights if change is None else change(weights)
