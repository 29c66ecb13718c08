"""Times every kind of attention beside plain attention with as many heads."""

import functools
import math

import keras

from lsmha_keras.attention.registry import attention_names, make_attention
from lsmha_keras.benchmark.attention import choose_xla, compile_steps, make_tokens
from lsmha_keras.benchmark.timing import summarise, time_in_turn
from lsmha_keras.errors import InputError

PACKAGES = ()
CASE = ("phase", "batch", "tokens", "width", "heads")
FIGURES = (
    "attention",
    "xla",
    "median_ms",
    "fastest_ms",
    "slowest_ms",
    "ratio_to_multi_head",
    "runs",
    "parameters",
    "multiply_adds",
    "ratio_of_multiply_adds",
    "note",
)
PLAIN = "multi_head"


def measure(phase, batch, tokens, width, heads, runs=10, limit=60.0):
    """Times one step of every kind of attention, in turn, on the same tokens.

    Args:
        phase: str, "inference", or "training": the gradients of all weights and of the tokens.
        batch: int.
        tokens: int, a square number: they come from a square grid.
        width: int, of the tokens.
        heads: int, divides `width`.
        runs: int, number of timed calls of each kind, after warm-up calls.
        limit: float, seconds; a kind with a slower step is not timed.

    Returns:
        A list of dicts with the keys `FIGURES`, one for each kind. `multiply_adds` is for one
        sample, from the kind's formula, so that both ratios can be compared.

    Raises:
        ValueError: if `tokens` is not a square number.

    Example:

    ```python
    rows = measure("inference", batch=1, tokens=64, width=128, heads=16)
    ```
    """
    x = make_tokens(batch, tokens, width)
    layers, steps, xla, notes = {}, {}, {}, {}
    for name in attention_names():
        layers[name] = layer = make_layer(name, tokens, width, heads)
        variants = compile_steps(layer, layer, phase)
        xla[name], notes[name] = choose_xla(variants, x)
        steps[name] = functools.partial(variants[xla[name]], x)
    seconds, left_out = time_in_turn(steps, runs, limit)
    plain = layers[PLAIN].count_multiply_adds(tokens)
    rows = []
    for name, layer in layers.items():
        times = summarise(seconds.get(name, []), seconds.get(PLAIN, []))
        times["ratio_to_multi_head"] = times.pop("ratio_to_ours")
        figures = {
            "attention": name,
            "xla": xla[name],
            **times,
            "parameters": sum(math.prod(w.shape) for w in layer.trainable_weights),
            "multiply_adds": layer.count_multiply_adds(tokens),
            "ratio_of_multiply_adds": round(layer.count_multiply_adds(tokens) / plain, 2),
            "note": left_out.get(name, notes[name]),
        }
        rows.append({key: figures[key] for key in FIGURES})
    keras.backend.clear_session()
    return rows


def make_layer(name, tokens, width, heads):
    """Makes and builds a layer of a kind of attention, without dropout.

    Args:
        name: str, one of `attention_names()`.
        tokens: int, a square number.
        width: int, of the tokens.
        heads: int, divides `width`.

    Raises:
        ValueError: if `tokens` is not a square number.
    """
    side = math.isqrt(tokens)
    if side * side != tokens:
        raise InputError(f"`tokens` must be a square number. Received: tokens={tokens}")
    layer = make_attention(name, heads, grid_shape=(side, side))
    layer(make_tokens(1, tokens, width), training=False)
    return layer
