"""Turns layers and models into timed steps, and times several beside each other."""

import statistics
from time import perf_counter

import keras

# In seconds. A shorter call suffers from the caches and sleeping threads that another candidate's
# call left behind, so a second call counts instead.
_SHORT = 0.2
# Seconds of calls that are enough to tell which of two is faster.
_ENOUGH = 0.05


def time_in_turn(steps, runs, limit=60.0):
    """Times functions in turn, so that other load on the machine affects all of them alike.

    Args:
        steps: dict from name to a function without arguments.
        runs: int, number of timed calls of each, after a warm-up call.
        limit: float, seconds; a function whose warm-up call takes longer is not timed.

    Returns:
        Two dicts: from name to the list of seconds, and from the names of functions that were not
        timed to the reason.

    Example:

    ```python
    seconds, left_out = time_in_turn({"sum": lambda: sum(range(10))}, runs=3)
    ```
    """
    seconds, left_out = {}, {}
    for name, step in steps.items():
        first = time_call(step)  # compiles, starts threads
        if first > limit:
            left_out[name] = f"not timed: the first step took {first:.3g} s"
        else:
            seconds[name] = []
    for _ in range(runs):
        for name, found in seconds.items():
            elapsed = time_call(steps[name])
            found.append(time_call(steps[name]) if elapsed < _SHORT else elapsed)
    return seconds, left_out


def time_call(function, *args):
    """Returns the duration of a call, in seconds."""
    start = perf_counter()
    function(*args)
    return perf_counter() - start


def fastest_of(function, *args):
    """Returns the shortest duration of a few calls, after a warm-up call, in seconds."""
    function(*args)
    seconds = []
    while len(seconds) < 2 or sum(seconds) < _ENOUGH:
        seconds.append(time_call(function, *args))
    return min(seconds)


def summarise(seconds, ours):
    """Describes the times of one candidate.

    Args:
        seconds: list of float; empty if it was not timed.
        ours: list of float, times to compare with; may be empty, too.

    Returns:
        A dict with `median_ms`, `fastest_ms`, `slowest_ms`, `ratio_to_ours` (of the medians; above
        1 is slower than ours) and `runs`; without times the first four are "".
    """
    row = dict.fromkeys(("median_ms", "fastest_ms", "slowest_ms", "ratio_to_ours"), "")
    if seconds:
        figures = {"median": statistics.median, "fastest": min, "slowest": max}
        row |= {f"{name}_ms": round(1000 * of(seconds), 4) for name, of in figures.items()}
    if seconds and ours:
        row["ratio_to_ours"] = round(statistics.median(seconds) / statistics.median(ours), 2)
    return {**row, "runs": len(seconds)}


def make_step(layer, call, loss=None, input_gradient=False, xla=False):
    """Compiles an inference or a training step of a Keras layer or model.

    JAX compiles, TensorFlow makes a graph, PyTorch runs eagerly, as `predict` and `fit` do.

    Args:
        layer: built `keras.layers.Layer` or `keras.Model`.
        call: function from a tensor and `training` to the layer's outputs.
        loss: function from the outputs to a scalar, for a training step: the gradients of the loss
            with respect to all weights. Defaults to `None`, inference.
        input_gradient: bool, whether a training step also computes the gradient of the input, as
            for a layer in the middle of a network. Defaults to `False`.
        xla: bool, whether TensorFlow compiles with XLA. Defaults to `False`.

    Returns:
        A function of a tensor that returns when everything is computed.

    Example:

    ```python
    layer = keras.layers.Dense(3)
    layer.build((None, 5))
    step = make_step(layer, layer, loss=lambda outputs: keras.ops.mean(outputs**2))
    step(keras.ops.ones((2, 5)))
    ```
    """

    def run(x):
        return call(x, training=False) if loss is None else loss(call(x, training=True))

    backend = keras.config.backend()
    if backend == "jax":
        return _jax_step(layer, run, loss is not None, input_gradient)
    if backend == "tensorflow":
        return _tensorflow_step(layer, run, loss is not None, input_gradient, xla)
    weights = [variable.value for variable in layer.trainable_variables]
    return make_torch_step(run, weights, loss is not None, input_gradient)


def make_torch_step(run, weights, training, input_gradient=False):
    """Makes a step of any function in PyTorch, whatever Keras's backend.

    Args:
        run: function of a tensor; returns a scalar loss if `training`.
        weights: list of tensors whose gradients a training step computes.
        training: bool.
        input_gradient: bool, whether it also computes that of the input. Defaults to `False`.

    Returns:
        A function of a tensor that returns when everything is computed.
    """
    import torch

    def step(x):
        if training:
            x = x.detach().requires_grad_(input_gradient)
            for tensor in weights:
                tensor.grad = None
            run(x).backward()
        else:
            with torch.no_grad():
                run(x)
        if x.is_cuda:
            torch.cuda.synchronize()

    return step


def _jax_step(layer, run, training, input_gradient):
    import jax

    variables = [*layer.trainable_variables, *layer.non_trainable_variables]

    def run_with(trainable, x, others):
        with keras.StatelessScope(zip(variables, [*trainable, *others], strict=True)):
            return run(x)

    wanted = (0, 1) if input_gradient else 0
    step = jax.jit(jax.grad(run_with, wanted) if training else run_with)
    trainable = [variable.value for variable in layer.trainable_variables]
    # As arguments: XLA could fold the random numbers of a constant seed.
    others = [variable.value for variable in layer.non_trainable_variables]
    return lambda x: jax.block_until_ready(step(trainable, x, others))


def _tensorflow_step(layer, run, training, input_gradient, xla):
    import tensorflow as tf

    weights = [variable.value for variable in layer.trainable_variables]

    @tf.function(jit_compile=xla)
    def step(x):
        if not training:
            return [run(x)]
        with tf.GradientTape() as tape:
            tape.watch(x)
            loss = run(x)
        return tape.gradient(loss, [x, *weights] if input_gradient else weights)

    return lambda x: [result.numpy() for result in step(x)]
