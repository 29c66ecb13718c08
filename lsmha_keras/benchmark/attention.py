"""Measures the attention layer beside Keras's own and, under torch, PyTorch's.

`python -m lsmha_keras.benchmark.attention --output attention.csv` appends to a table, on the
backend that KERAS_BACKEND names. All layers are measured in turn, in one process, on the same
tokens: inference, or a training step, that is the gradients of all weights and of the tokens.
"""

import argparse
import csv
import itertools
import pathlib
import statistics
import time

import keras
import numpy as np

from lsmha_keras.layers.large_scale_multi_head_attention import LargeScaleMultiHeadAttention
from lsmha_keras.training.environment import describe_hardware, describe_versions

_OURS, _KERAS, _TORCH = "ours", "keras.layers.MultiHeadAttention", "torch.nn.MultiheadAttention"
_DROPOUT = 0.1


def measure(batch, tokens, heads, training, width=256, runs=10):
    """Measures one case.

    Args:
        batch: int.
        tokens: int.
        heads: int, divides `width`.
        training: bool, a training step instead of inference.
        width: int, of the tokens.
        runs: int, how often each layer is measured after two times that do not count.

    Returns:
        A list of dictionaries, one for each layer. On TensorFlow each layer is measured with and
        without XLA and counts with the faster of the two.
    """
    x = np.random.default_rng(0).normal(size=(batch, tokens, width)).astype("float32")
    steps = _make_steps(x, heads, width, training)
    seconds = {name: [] for name in steps}
    for run in range(runs + 2):
        for name, step in steps.items():
            start = time.perf_counter()
            step()
            if run > 1:
                seconds[name].append(time.perf_counter() - start)
    fastest = {}
    for (layer, xla), found in seconds.items():
        if layer not in fastest or statistics.median(found) < statistics.median(fastest[layer][1]):
            fastest[layer] = (xla, found)
    ours = statistics.median(fastest[_OURS][1])
    return [
        {
            "backend": keras.config.backend(),
            "phase": "training" if training else "inference",
            "batch": batch,
            "tokens": tokens,
            "width": width,
            "heads": heads,
            "layer": layer,
            "xla": xla,
            "median_ms": round(1000 * statistics.median(found), 4),
            "fastest_ms": round(1000 * min(found), 4),
            "slowest_ms": round(1000 * max(found), 4),
            "ratio_to_ours": round(statistics.median(found) / ours, 2),
            "runs": runs,
            "machine": describe_hardware(),
            "versions": " ".join(f"{k}={v}" for k, v in describe_versions().items()),
        }
        for layer, (xla, found) in fastest.items()
    ]


def _make_steps(x, heads, width, training):
    """Returns a dictionary from (layer, XLA) to a function that runs one step to its end."""
    backend = keras.config.backend()
    ours = LargeScaleMultiHeadAttention(heads, dropout=_DROPOUT)
    peer = keras.layers.MultiHeadAttention(heads, width // heads, dropout=_DROPOUT)
    calls = {
        _OURS: (ours, lambda layer, x, **kwargs: layer(x, **kwargs)),
        _KERAS: (peer, lambda layer, x, **kwargs: layer(x, x, **kwargs)),
    }
    x = keras.ops.convert_to_tensor(x)
    ours(x), peer(x, x)
    if backend == "jax":
        return {(n, True): _jax_step(*call, x, training) for n, call in calls.items()}
    if backend == "tensorflow":
        return {
            (n, xla): _tensorflow_step(*call, x, training, xla)
            for (n, call), xla in itertools.product(calls.items(), (False, True))
        }
    steps = {
        (n, False): _torch_step(
            lambda x, layer=layer, call=call: call(layer, x, training=training),
            [v.value for v in layer.trainable_variables],
            x,
            training,
        )
        for n, (layer, call) in calls.items()
    }
    return {**steps, (_TORCH, False): _torch_peer_step(heads, width, x, training)}


def _jax_step(layer, call, x, training):
    import jax

    trainable = [v.value for v in layer.trainable_variables]
    others = [v.value for v in layer.non_trainable_variables]
    mapping = [*layer.trainable_variables, *layer.non_trainable_variables]

    def run(trainable, x):
        values = zip(mapping, [*trainable, *others], strict=True)
        with keras.StatelessScope(values):
            outputs = call(layer, x, training=training)
        return (outputs**2).mean() if training else outputs

    step = jax.jit(jax.grad(run, argnums=(0, 1)) if training else run)
    return lambda: jax.block_until_ready(step(trainable, x))


def _tensorflow_step(layer, call, x, training, xla):
    import tensorflow as tf

    weights = [v.value for v in layer.trainable_variables]

    @tf.function(jit_compile=xla)
    def step(x):
        if not training:
            return [call(layer, x, training=False)]
        with tf.GradientTape() as tape:
            tape.watch(x)
            loss = tf.reduce_mean(call(layer, x, training=True) ** 2)
        return tape.gradient(loss, [x, *weights])

    return lambda: [result.numpy() for result in step(x)]


def _torch_step(call, weights, x, training):
    import torch

    if not training:

        def step():
            with torch.no_grad():
                return call(x)

        return step
    x = x.detach().clone().requires_grad_()

    def step():
        for tensor in (x, *weights):
            tensor.grad = None
        (call(x) ** 2).mean().backward()

    return step


def _torch_peer_step(heads, width, x, training):
    import torch

    layer = torch.nn.MultiheadAttention(width, heads, dropout=_DROPOUT, batch_first=True)
    layer.train(training)
    return _torch_step(
        lambda x: layer(x, x, x, need_weights=False)[0], list(layer.parameters()), x, training
    )


def main(arguments=None):
    """Runs the benchmark from the command line.

    Args:
        arguments: list of str; None takes the process's.
    """
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--output", default="attention.csv", help="csv file to append to")
    parser.add_argument("--batch", type=int, nargs="+", default=[1, 16])
    parser.add_argument("--tokens", type=int, nargs="+", default=[64, 256])
    parser.add_argument("--heads", type=int, nargs="+", default=[4, 16, 64])
    parser.add_argument("--runs", type=int, default=10)
    given = parser.parse_args(arguments)
    path = pathlib.Path(given.output)
    cases = itertools.product(given.batch, given.tokens, given.heads, (False, True))
    for batch, tokens, heads, training in cases:
        rows = measure(batch, tokens, heads, training, runs=given.runs)
        is_new = not path.exists()
        with path.open("a", newline="") as file:
            writer = csv.DictWriter(file, rows[0])
            if is_new:
                writer.writeheader()
            writer.writerows(rows)
        for row in rows:
            print(
                f"{row['phase']:9} batch {batch:3} tokens {tokens:4} heads {heads:3} "
                f"{row['median_ms']:9.2f} ms ({row['fastest_ms']:.2f} .. {row['slowest_ms']:.2f}) "
                f"{row['ratio_to_ours']:6.2f}x  {row['layer']}",
                flush=True,
            )


if __name__ == "__main__":
    main()
