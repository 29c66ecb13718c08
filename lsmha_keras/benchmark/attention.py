"""Times the attention layer beside Keras's own and, under torch, PyTorch's."""

import functools

import keras
import numpy as np

from lsmha_keras.benchmark.memory import lack_of_memory
from lsmha_keras.benchmark.timing import (
    fastest_of,
    make_step,
    make_torch_step,
    summarise,
    time_in_turn,
)
from lsmha_keras.layers.large_scale_multi_head_attention import LargeScaleMultiHeadAttention

PACKAGES = ()
CASE = ("phase", "batch", "tokens", "width", "heads")
FIGURES = ("layer", "xla", "median_ms", "fastest_ms", "slowest_ms", "ratio_to_ours", "runs", "note")

OURS, KERAS, TORCH = "ours", "keras.layers.MultiHeadAttention", "torch.nn.MultiheadAttention"
_DROPOUT = 0.1
# Number of tensors of batch x heads x tokens x tokens floats that a peer holds at once, rounded up.
_SCORE_TENSORS = {"inference": 4, "training": 6}
# Where the graph takes longer than this many seconds, XLA is tried on a batch of 1 first, and on
# the whole batch only if that promises less than this many times the graph's time: with dropout it
# can take twenty times as long.
_LONG, _HOPELESS = 0.1, 3


def measure(phase, batch, tokens, width, heads, runs=10, limit=60.0):
    """Times one step of every layer, in turn, on the same tokens.

    Args:
        phase: str, "inference", or "training": the gradients of all weights and of the tokens.
        batch: int.
        tokens: int.
        width: int, of the tokens.
        heads: int, divides `width`.
        runs: int, number of timed calls of each layer, after warm-up calls.
        limit: float, seconds; a layer with a slower step is not timed.

    Returns:
        A list of dicts with the keys `FIGURES`, one for each layer. On TensorFlow a layer is timed
        with or without XLA, whichever is faster. `note` says what was not measured and why.

    Example:

    ```python
    ours, keras_layer = measure("training", batch=16, tokens=256, width=256, heads=64)[:2]
    ```
    """
    x = make_tokens(batch, tokens, width)
    steps, xla, notes = {}, {}, {}
    for layer in layer_names():
        notes[layer] = why_not(layer, phase, batch, tokens, heads)
        if not notes[layer]:
            variants = make_steps(layer, phase, width, heads)
            xla[layer], notes[layer] = choose_xla(variants, x)
            steps[layer] = functools.partial(variants[xla[layer]], x)
    seconds, left_out = time_in_turn(steps, runs, limit)
    return [
        {
            "layer": layer,
            "xla": xla.get(layer, ""),
            **summarise(seconds.get(layer, []), seconds.get(OURS, [])),
            "note": left_out.get(layer, notes[layer]),
        }
        for layer in notes
    ]


def layer_names():
    """Lists the layers to measure on the current backend, ours first."""
    return [OURS, KERAS, *([TORCH] if keras.config.backend() == "torch" else [])]


def make_tokens(batch, tokens, width):
    """Draws random tokens, a tensor of the current backend."""
    x = np.random.default_rng(0).normal(size=(batch, tokens, width))
    return keras.ops.convert_to_tensor(x.astype("float32"))


def make_steps(layer, phase, width, heads):
    """Makes the steps of a layer.

    Args:
        layer: str, one of `layer_names()`.
        phase: str, "inference" or "training".
        width: int, of the tokens.
        heads: int.

    Returns:
        A dictionary from whether XLA compiles it to a function of the tokens.
    """
    if layer == TORCH:
        return {False: _make_torch_peer(phase, width, heads)}
    if layer == OURS:
        model = LargeScaleMultiHeadAttention(heads, dropout=_DROPOUT)
        call = model
    else:
        model = keras.layers.MultiHeadAttention(heads, width // heads, dropout=_DROPOUT)

        def call(x, training):
            return model(x, x, training=training)

    call(make_tokens(1, 2, width), training=False)  # builds it
    return compile_steps(model, call, phase)


def compile_steps(layer, call, phase):
    """Makes the steps of a built layer, with and without XLA where there is a choice.

    Args:
        layer: built `keras.layers.Layer`.
        call: function from tokens and `training` to its outputs.
        phase: str, "inference" or "training".

    Returns:
        A dictionary from whether XLA compiles it to a function of the tokens.
    """
    loss = _mean_square if phase == "training" else None
    kinds = {"jax": (True,), "torch": (False,), "tensorflow": (False, True)}
    return {
        xla: make_step(layer, call, loss, input_gradient=True, xla=xla)
        for xla in kinds[keras.config.backend()]
    }


def why_not(layer, phase, batch, tokens, heads):
    """Returns why a peer cannot run, from an estimate of its memory, or "" if it can."""
    if layer == OURS:
        return ""
    return lack_of_memory(_SCORE_TENSORS[phase] * batch * heads * tokens**2 * 4 / 2**30)


def _make_torch_peer(phase, width, heads):
    import torch

    layer = torch.nn.MultiheadAttention(width, heads, dropout=_DROPOUT, batch_first=True)
    layer.train(phase == "training")

    def run(x):
        outputs = layer(x, x, x, need_weights=False)[0]
        return _mean_square(outputs) if phase == "training" else outputs

    return make_torch_step(run, list(layer.parameters()), phase == "training", input_gradient=True)


def _mean_square(outputs):
    return keras.ops.mean(outputs**2)


def choose_xla(variants, x):
    """Finds out whether a layer is faster with XLA.

    Args:
        variants: dict, as `compile_steps` returns it.
        x: tokens.

    Returns:
        A pair: bool, and a note for the table, str.
    """
    if len(variants) == 1:
        return next(iter(variants)), ""
    graph = fastest_of(variants[False], x)
    if graph > _LONG:
        single = fastest_of(variants[True], x[:1])
        if single * len(x) > _HOPELESS * graph:
            return False, f"XLA takes {single:.2g} s for a batch of 1"
    return fastest_of(variants[True], x) < graph, ""
