"""Layers of sequences: the 1-D tokenizer, LAMA pooling, convolutional blocks, and padding."""

import numpy as np
import pytest
from keras import ops

from lsmha_keras.layers.conv_block import ConvBlock
from lsmha_keras.layers.gru_tokenizer import GRUTokenizer
from lsmha_keras.layers.lama_pooling import LAMAPooling
from lsmha_keras.layers.sequence_pooling import SequencePooling
from lsmha_keras.layers.sequence_tokenizer import SequenceTokenizer
from tests.checks import random_tokens, to_numpy

DESIGNS = ("full", "separable", "inverted_bottleneck", "reparameterized")


def by_hand(x, kernel):
    """The reference's stage for one sequence: convolution, ReLU, max pooling, in loops."""
    size, _, filters = kernel.shape
    stride, padding = max(1, size // 2 - 1), max(1, size // 2)
    x = np.pad(x, ((padding, padding), (0, 0)))
    steps = range(0, len(x) - size + 1, stride)
    convolved = np.array([np.einsum("tc,tcf->f", x[i : i + size], kernel) for i in steps])
    relu = np.pad(np.maximum(convolved.reshape(-1, filters), 0), ((1, 1), (0, 0)))
    return np.array([relu[i : i + 2].max(axis=0) for i in range(0, len(relu) - 1, 2)])


@pytest.mark.parametrize("kernel_size", [2, 3, 4, 6])
def test_a_stage_is_the_references(kernel_size):
    layer = SequenceTokenizer(5, kernel_size=kernel_size)
    x = random_tokens(2, 11, 3)
    tokens = to_numpy(layer(x))
    kernel = layer.get_weights()[0]
    expected = np.stack([by_hand(sequence, kernel) for sequence in x])
    np.testing.assert_allclose(tokens, expected, atol=1e-5)
    assert tokens.shape[1] == layer.num_tokens(x.shape)


@pytest.mark.parametrize("num_layers", [0, 1, 2])
@pytest.mark.parametrize("kernel_size", [2, 3, 4, 6])
def test_padding_makes_no_tokens(kernel_size, num_layers):
    layer = SequenceTokenizer(3, num_layers, kernel_size, num_filters=4)
    x = random_tokens(1, 12, 3)
    for length in range(1, 13):
        mask = np.arange(12)[None] < length
        tokens = to_numpy(layer(x, padding_mask=mask))
        valid = ops.convert_to_numpy(layer.token_mask(mask))[0]
        try:
            expected = to_numpy(layer(x[:, :length]))
        except ValueError:  # too short to stand alone
            continue
        assert valid.sum() == expected.shape[1] and valid[: valid.sum()].all()
        np.testing.assert_allclose(tokens[:, valid], expected, atol=1e-5)
        assert not tokens[:, ~valid].any()


def gru_by_hand(x, kernel, recurrent, bias):
    """The states of a GRU (reset after the product) after each step of one sequence."""
    state, states, units = np.zeros(len(recurrent)), [], len(recurrent)
    for step in x:
        inner = step @ kernel + bias[0]
        own = state @ recurrent + bias[1]
        update, reset = (
            1 / (1 + np.exp(-(inner[i : i + units] + own[i : i + units]))) for i in (0, units)
        )
        new = np.tanh(inner[2 * units :] + reset * own[2 * units :])
        state = update * state + (1 - update) * new
        states.append(state)
    return np.array(states)


def test_a_gru_reads_both_ways_and_no_padding():
    layer = GRUTokenizer(4)
    x = random_tokens(2, 6, 3)
    mask = np.arange(6) < np.array([[6], [4]])
    tokens = to_numpy(layer(x, padding_mask=mask))
    forward, backward = (
        [to_numpy(weight).astype("float64") for weight in half.weights]
        for half in (layer.forward_layers[0], layer.backward_layers[0])
    )
    for row, length in enumerate((6, 4)):
        own = x[row, :length].astype("float64")
        expected = np.concatenate(
            [gru_by_hand(own, *forward), gru_by_hand(own[::-1], *backward)[::-1]], axis=1
        )
        np.testing.assert_allclose(tokens[row, :length], expected, atol=1e-5)
        assert not tokens[row, length:].any()
    assert layer.num_tokens(x.shape) == 6
    # Three gates, two directions, 2 units: 3 inputs and 2 states each.
    assert layer.count_multiply_adds(6) == 6 * 2 * 3 * 2 * (3 + 2)
    with pytest.raises(ValueError, match="even.*hidden_dim=5"):
        GRUTokenizer(5)


def test_lama_weights_are_those_of_the_formula():
    layer = LAMAPooling(2)
    x = random_tokens(3, 5, 4)
    mask = np.array([[1, 1, 1, 1, 1], [1, 1, 0, 0, 0], [1, 0, 0, 0, 0]], bool)
    pooled = to_numpy(layer(x, padding_mask=mask))
    context_kernel, token_kernel, context = (w.astype("float64") for w in layer.get_weights())
    for row, length in enumerate(mask.sum(axis=1)):
        for head in range(2):
            scores = [
                np.tanh((context_kernel[:, head] @ context[0]) * (token_kernel[:, head] @ token))
                for token in x[row, :length]
            ]
            weights = np.exp(scores) / np.exp(scores).sum()
            expected = weights @ x[row, :length]
            np.testing.assert_allclose(pooled[row, 4 * head : 4 * head + 4], expected, atol=1e-5)
    weights = to_numpy(layer.token_weights(ops.convert_to_tensor(x), mask))
    np.testing.assert_allclose(weights.sum(axis=-1), 1, atol=1e-6)
    assert not weights[1, :, 2:].any()
    # A sequence of one token is pooled to it.
    np.testing.assert_allclose(pooled[2], np.tile(x[2, 0], 2), atol=1e-6)


def test_a_context_of_the_sequence_changes_the_weights():
    """With a learned context the weights of a token's score do not depend on the other tokens."""
    x = random_tokens(1, 4, 6)
    other = np.concatenate([x[:, :2], -x[:, 2:]], axis=1)
    for context, depends in (("learned", False), ("mean", True)):
        layer = LAMAPooling(2, context=context)
        first, second = (to_numpy(layer.token_weights(v)) for v in (_built(layer, x), other))
        ratios = [weights[..., 0] / weights[..., 1] for weights in (first, second)]
        assert np.allclose(*ratios, rtol=1e-5) != depends


def _built(layer, x):
    layer(x)
    return x


def test_normalized_lama_has_unit_vectors():
    pooled = to_numpy(LAMAPooling(3, normalize=True)(random_tokens(2, 5, 4)))
    np.testing.assert_allclose(np.linalg.norm(pooled.reshape(2, 3, 4), axis=-1), 1, atol=1e-5)


def test_one_head_of_lama_can_be_sequence_pooling():
    """Where tanh is almost linear, one head weights tokens as a dense layer does."""
    x = random_tokens(2, 5, 4)
    sequence, lama = SequencePooling(), LAMAPooling(1)
    sequence(x), lama(x)
    kernel = np.full((4, 1), 1e-3, "float32")
    sequence.set_weights([kernel, np.zeros(1)])
    lama.set_weights([np.eye(4, 1), kernel, np.eye(1, 4)])
    np.testing.assert_allclose(to_numpy(lama(x)), to_numpy(sequence(x)), atol=1e-6)


@pytest.mark.parametrize("design", DESIGNS)
@pytest.mark.parametrize("training", [False, True])
def test_a_convolution_over_time_leaves_padding_out(design, training):
    x = random_tokens(3, 6, 4)
    short, long = ConvBlock((6, 1), design), ConvBlock((9, 1), design)
    short(x)
    padded = np.concatenate([x, random_tokens(3, 3, 4, seed=1)], axis=1)
    mask = np.repeat(np.arange(9)[None] < 6, 3, axis=0)
    long(padded, padding_mask=mask)
    long.set_weights(short.get_weights())
    expected = to_numpy(short(x, training=training))
    found = to_numpy(long(padded, padding_mask=mask, training=training))[:, :6]
    np.testing.assert_allclose(found, expected, atol=1e-5)
    for own, other in zip(short.get_weights(), long.get_weights(), strict=True):
        np.testing.assert_allclose(own, other, atol=1e-5)  # running statistics among them
    assert all(w.shape[1] == 1 for w in short.weights if len(w.shape) == 4)


@pytest.mark.parametrize("design", DESIGNS)
def test_a_convolution_over_time_folds(design):
    x = random_tokens(2, 6, 4)
    block, fused = ConvBlock((6, 1), design), ConvBlock((6, 1), design, fused=True)
    block(x, training=True), fused(x)
    fused.set_weights(block.fused_weights())
    np.testing.assert_allclose(to_numpy(fused(x)), to_numpy(block(x)), atol=1e-5)
