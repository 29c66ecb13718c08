import keras
import numpy as np
import pytest

from tests.checks import random_tokens

if keras.config.backend() != "tensorflow":
    pytest.skip("the loop of another backend", allow_module_level=True)

import tensorflow as tf

from lsmha_keras.layers import tensorflow_attention


@pytest.fixture(autouse=True)
def loop_over_pairs_of_heads(monkeypatch):
    monkeypatch.setattr(tensorflow_attention, "GROUP_BYTES", 2 * 4 * 24 * 24)
    monkeypatch.setattr(tensorflow_attention, "MIN_LOOP_BYTES", 0)


def step(batch, **options):
    """A graph that gives the output and the gradients of its sum of squares."""

    @tf.function(input_signature=[tf.TensorSpec((3, batch, 6, 24, 5))], **options)
    def run(qkv):
        with tf.GradientTape() as tape:
            tape.watch(qkv)
            output = tensorflow_attention.loop_attention(*tf.unstack(qkv), None, 0.3, [1, 2])
        return output, tape.gradient(output, qkv, output_gradients=output)

    return run


def loops(function):
    """Whether the graph holds a loop."""
    definitions = function.get_concrete_function().graph.as_graph_def()
    nodes = [*definitions.node, *(n for f in definitions.library.function for n in f.node_def)]
    return any("While" in node.op for node in nodes)


qkv = np.stack([random_tokens(4, 6, 24, 5, seed=i) for i in range(3)])


@pytest.mark.parametrize(
    "batch, options", [(None, {}), (4, {"jit_compile": True})], ids=["any batch", "XLA"]
)
def test_graphs_agree(batch, options):
    expected = step(4)
    assert loops(expected)
    for found, wanted in zip(step(batch, **options)(qkv), expected(qkv), strict=True):
        np.testing.assert_allclose(found, wanted, atol=1e-5)
