"""Measures the peak memory of the attention layers, each in its own process."""

from lsmha_keras.benchmark.attention import (
    CASE,
    PACKAGES,
    layer_names,
    make_steps,
    make_tokens,
    why_not,
)
from lsmha_keras.benchmark.memory import peak_in_new_process, peak_mib

__all__ = ["CASE", "FIGURES", "PACKAGES", "measure"]

FIGURES = ("layer", "xla", "peak_mib", "note")


def measure(phase, batch, tokens, width, heads, limit=60.0):
    """Measures the peak memory of one step of every layer.

    Args:
        phase: str, "inference" or "training".
        batch: int.
        tokens: int.
        width: int, of the tokens.
        heads: int, divides `width`.
        limit: float, seconds after which a measurement is given up, imports included.

    Returns:
        A list of dicts with the keys `FIGURES`, one for each layer; on TensorFlow two for each,
        without and with XLA. `note` says why a layer was not measured.

    Example:

    ```python
    rows = measure("training", batch=16, tokens=256, width=256, heads=128)
    ```
    """
    sizes = (batch, tokens, width, heads)
    rows = []
    for layer in layer_names():
        for xla in make_steps(layer, phase, width, heads):
            peak, note = None, why_not(layer, phase, batch, tokens, heads)
            if not note:
                peak, note = peak_in_new_process(_peak, (layer, xla, phase, *sizes), limit)
            rows.append({"layer": layer, "xla": xla, "peak_mib": peak, "note": note})
    return rows


def _peak(layer, xla, phase, batch, tokens, width, heads):
    step = make_steps(layer, phase, width, heads)[xla]
    step(make_tokens(1, 16, width))  # starts threads and loads libraries
    x = make_tokens(batch, tokens, width)
    return peak_mib(lambda: step(x))
