"""Measures the peak memory of every kind of attention, each in its own process."""

from lsmha_keras.attention.registry import attention_names
from lsmha_keras.benchmark.attention import compile_steps, make_tokens
from lsmha_keras.benchmark.attention_kinds import CASE, PACKAGES, PLAIN, make_layer
from lsmha_keras.benchmark.memory import peak_in_new_process, peak_mib

__all__ = ["CASE", "FIGURES", "PACKAGES", "measure"]

FIGURES = ("attention", "xla", "peak_mib", "ratio_to_multi_head", "note")


def measure(phase, batch, tokens, width, heads, limit=60.0):
    """Measures the peak memory that one step of every kind of attention adds.

    Args:
        phase: str, "inference", or "training": the gradients of all weights and of the tokens.
        batch: int.
        tokens: int, a square number: they come from a square grid.
        width: int, of the tokens.
        heads: int, divides `width`.
        limit: float, seconds after which a measurement is given up, imports included.

    Returns:
        A list of dicts with the keys `FIGURES`, one for each kind; on TensorFlow two for each,
        without and with XLA. `note` says why a kind was not measured.

    Raises:
        ValueError: if `tokens` is not a square number.

    Example:

    ```python
    rows = measure("training", batch=16, tokens=256, width=256, heads=64)
    ```
    """
    plain = make_layer(PLAIN, tokens, width, heads)
    sizes, rows, peaks = (batch, tokens, width, heads), [], {}
    for xla in compile_steps(plain, plain, phase):
        for name in attention_names():
            peak, note = peak_in_new_process(_peak, (name, xla, phase, *sizes), limit)
            peaks[xla, name] = peak
            ratio = None if peak is None or not peaks[xla, PLAIN] else peak / peaks[xla, PLAIN]
            figures = (name, xla, peak, ratio and round(ratio, 2), note)
            rows.append(dict(zip(FIGURES, figures, strict=True)))
    return rows


def _peak(name, xla, phase, batch, tokens, width, heads):
    layer = make_layer(name, tokens, width, heads)
    step = compile_steps(layer, layer, phase)[xla]
    step(make_tokens(1, tokens, width))  # starts threads and loads libraries
    x = make_tokens(batch, tokens, width)
    return peak_mib(lambda: step(x))
