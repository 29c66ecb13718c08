import numpy as np
import pytest

from lsmha_keras.layers.transformer_block import TransformerBlock
from tests import reference
from tests.checks import check_layer, random_tokens, to_numpy


def layer_norm(x, layer):
    mean, variance = x.mean(-1, keepdims=True), x.var(-1, keepdims=True)
    normed = (x - mean) / np.sqrt(variance + 1e-5)
    return normed * to_numpy(layer.gamma) + to_numpy(layer.beta)


def gelu(x):
    from math import erf, sqrt

    return x * 0.5 * (1 + np.vectorize(erf)(x / sqrt(2)))


def test_matches_the_reference_formula():
    x = random_tokens(2, 9, 24)
    block = TransformerBlock(num_heads=6, mlp_dim=20, attention_dropout=0.1)
    block(x)
    for i, weight in enumerate(block.weights):
        if "seed_generator" not in weight.path:
            weight.assign(random_tokens(*weight.shape, seed=i) * 0.4)
    y = x + reference.attention(layer_norm(x, block.attention_norm), block.attention)[0]
    y = layer_norm(y, block.mlp_norm)
    hidden = gelu(y @ to_numpy(block.mlp_hidden.kernel) + to_numpy(block.mlp_hidden.bias))
    y = y + hidden @ to_numpy(block.mlp_output.kernel) + to_numpy(block.mlp_output.bias)
    np.testing.assert_allclose(to_numpy(block(x)), y, atol=2e-5, rtol=1e-5)


def test_layer_checks():
    check_layer(
        TransformerBlock(
            num_heads=3,
            head_dim=5,
            mlp_dim=20,
            dropout_rate=0.1,
            attention_dropout=0.1,
            stochastic_depth_rate=0.2,
        ),
        random_tokens(2, 9, 24),
    )


def test_flags_return_what_attention_returns():
    x = random_tokens(2, 9, 24)
    block = TransformerBlock(num_heads=6, mlp_dim=20)
    output, heads, scores = block(x, return_head_outputs=True, return_attention_scores=True)
    _, expected, weights = reference.attention(layer_norm(x, block.attention_norm), block.attention)
    np.testing.assert_allclose(to_numpy(heads), expected, atol=1e-5)
    np.testing.assert_allclose(to_numpy(scores), weights, atol=1e-5)
    np.testing.assert_allclose(to_numpy(output), to_numpy(block(x)), atol=1e-5)


def test_bad_arguments():
    with pytest.raises(ValueError, match="mlp_dim=0"):
        TransformerBlock(num_heads=2, mlp_dim=0)
    with pytest.raises(ValueError, match="num_heads=5"):
        TransformerBlock(num_heads=5, mlp_dim=8)(random_tokens(1, 4, 24))
