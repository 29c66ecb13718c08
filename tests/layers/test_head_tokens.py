"""Tokens of groups of channels beside the others."""

import keras
import numpy as np
import pytest

from lsmha_keras.benchmark.multiply_adds import count_multiply_adds
from lsmha_keras.layers.head_tokens import HeadTokens
from lsmha_keras.layers.transformer_block import TransformerBlock
from tests.checks import check_config, check_layer, random_tokens, to_numpy

TOKENS, CHANNELS, GROUPS = 10, 12, 3


def shaken(layer, *shape):
    layer.build((None, *shape))
    for i, weight in enumerate(layer.trainable_weights):
        weight.assign(0.3 * random_tokens(*weight.shape, seed=i) + (weight.name == "gamma"))
    return layer


def gelu(x):
    from scipy.special import erf

    return x * (1 + erf(x / np.sqrt(2))) / 2


def test_values_are_those_of_numpy():
    pytest.importorskip("scipy")
    layer, x = shaken(HeadTokens(GROUPS), TOKENS, CHANNELS), random_tokens(2, TOKENS, CHANNELS)
    kernel, bias = (to_numpy(w) for w in layer.projection.weights)
    gamma, beta = (to_numpy(w) for w in layer.norm.weights)
    mask = np.arange(TOKENS)[None] < np.array([[TOKENS], [4]])
    for valid in (None, mask):
        found = to_numpy(layer(x, padding_mask=valid))
        for sample in range(2):
            rows = x[sample] if valid is None else x[sample][valid[sample]]
            mean = rows.astype("float64").mean(0)
            for group in range(GROUPS):
                projected = mean[4 * group : 4 * group + 4] @ kernel + bias
                parts = projected.reshape(GROUPS, 4)
                parts = parts - parts.mean(-1, keepdims=True)
                parts = parts / np.sqrt((parts**2).mean(-1, keepdims=True) + 1e-5)
                expected = gelu(parts * gamma + beta).ravel() + to_numpy(layer.position)[0, group]
                np.testing.assert_allclose(found[sample, group], expected, atol=1e-5)


def test_layer_checks():
    check_layer(shaken(HeadTokens(GROUPS), TOKENS, CHANNELS), random_tokens(2, TOKENS, CHANNELS))
    with pytest.raises(ValueError, match="5 groups, token width 12"):
        HeadTokens(5).build((None, TOKENS, CHANNELS))


def make(**arguments):
    return shaken(TransformerBlock(4, mlp_dim=8, **arguments), TOKENS, CHANNELS)


def test_attention_sees_them_and_the_block_drops_them():
    block, x = make(head_tokens=GROUPS), random_tokens(2, TOKENS, CHANNELS)
    output, heads, scores = block(x, return_head_outputs=True, return_attention_scores=True)
    assert output.shape == x.shape
    assert tuple(heads.shape) == (2, TOKENS, 4, 3)
    assert tuple(scores.shape) == (2, 4, TOKENS, TOKENS + GROUPS)
    np.testing.assert_allclose(to_numpy(scores).sum(-1), 1, rtol=1e-5)
    symbolic = block(keras.Input(x.shape[1:]), return_attention_scores=True)[1]
    assert tuple(symbolic.shape) == (None, 4, TOKENS, TOKENS + GROUPS)
    normed = to_numpy(block.attention_norm(x))
    joined = np.concatenate([normed, to_numpy(block.head_token_layer(normed))], axis=1)
    expected = to_numpy(block.attention(joined, return_head_outputs=True)[1])[:, :TOKENS]
    np.testing.assert_allclose(to_numpy(heads), expected, atol=1e-5)
    # The rest of the block goes on with the tokens alone.
    state = x + to_numpy(block.attention(joined))[:, :TOKENS]
    rest = to_numpy(block.add_second_branch(block.mlp_norm(state), None, None))
    np.testing.assert_allclose(to_numpy(output), rest, atol=1e-5)


def test_padding_does_not_count():
    mask = np.arange(TOKENS)[None] < np.array([[TOKENS], [4]])
    block, x = make(head_tokens=GROUPS), random_tokens(2, TOKENS, CHANNELS)
    other = np.where(mask[..., None], x, 50)
    outputs = [to_numpy(block(t, padding_mask=mask))[mask] for t in (x, other)]
    np.testing.assert_allclose(*outputs, atol=1e-5)


def test_cost_and_config():
    block = make(head_tokens=GROUPS)
    model = keras.Sequential([keras.Input((TOKENS, CHANNELS)), block])
    plain = make()
    without = keras.Sequential([keras.Input((TOKENS, CHANNELS)), plain])
    added = 4 * 12 + 12 + 2 * 4 + 3 * 12
    assert block.count_params() - plain.count_params() == added
    attention = [t * 4 * 144 + 2 * t**2 * 12 for t in (TOKENS, TOKENS + GROUPS)]
    more = count_multiply_adds(model) - count_multiply_adds(without)
    assert more == attention[1] - attention[0] + 144
    check_config(block)


@pytest.mark.parametrize("kind", ["hilo", "windows", "super", "normlin"])
def test_kinds_of_a_grid_see_no_others(kind):
    with pytest.raises(ValueError, match="leave out `head_tokens`"):
        TransformerBlock(2, 4, attention=kind, grid_shape=(2, 5), head_tokens=3)
    assert TransformerBlock(2, 4, attention="optimised", grid_shape=(2, 5), head_tokens=3)
