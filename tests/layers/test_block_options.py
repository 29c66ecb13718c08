"""What a transformer block can do beside attention and a perceptron, by its identities."""

import keras
import numpy as np
import pytest

from lsmha_keras.benchmark.multiply_adds import count_multiply_adds
from lsmha_keras.layers.transformer_block import TransformerBlock
from lsmha_keras.models import CCTBackbone
from lsmha_keras.surgery.grow import grow
from tests.attention.test_registry import SMALL
from tests.checks import check_layer, random_tokens, to_numpy

GRID = (3, 4)
OPTIONS = {"head_dropout": 0.25, "mlp_conv": True, "context_broadcast": True}


def make(**arguments):
    block = TransformerBlock(4, mlp_dim=10, grid_shape=GRID, **arguments)
    block.build((None, 12, 8))
    # The same values whether there is a convolution, which comes last, or not.
    for i, weight in enumerate(sorted(block.trainable_weights, key=_convolution_last)):
        noise = 0.3 * random_tokens(*weight.shape, seed=i)
        weight.assign(noise + (weight.name == "gamma"))
    return block


def _convolution_last(weight):
    return "mlp_conv" in weight.path


def perceptron_of(block, x, **masks):
    """What the second branch adds."""
    state = x + to_numpy(block.attention(block.attention_norm(x), **masks))
    return to_numpy(block(x, **masks)) - to_numpy(block.mlp_norm(state))


def test_context_broadcasting_keeps_the_mean_and_halves_deviations():
    plain, block, x = make(), make(context_broadcast=True), random_tokens(2, 12, 8)
    before, after = perceptron_of(plain, x), perceptron_of(block, x)
    means = before.mean(1, keepdims=True)
    np.testing.assert_allclose(after.mean(1, keepdims=True), means, atol=1e-5)
    np.testing.assert_allclose(after - means, (before - means) / 2, atol=1e-5)
    # Equal tokens stay as they are.
    equal = np.repeat(x[:, :1], 12, axis=1)
    np.testing.assert_allclose(to_numpy(block(equal)), to_numpy(plain(equal)), atol=1e-5)


def test_the_mean_is_that_of_tokens_that_count():
    x, mask = random_tokens(2, 12, 8), np.arange(12)[None] < np.array([[12], [5]])
    plain, block = make(), make(context_broadcast=True)
    before, after = (perceptron_of(b, x, padding_mask=mask)[1, :5] for b in (plain, block))
    np.testing.assert_allclose(after, (before + before.mean(0)) / 2, atol=1e-5)
    block = make(context_broadcast=True, mlp_conv=True)
    other = np.where(mask[..., None], x, 100)
    outputs = [to_numpy(block(t, padding_mask=mask))[mask] for t in (x, other)]
    np.testing.assert_allclose(*outputs, atol=1e-5)
    assert np.isfinite(to_numpy(block(x, padding_mask=np.zeros_like(mask)))).all()


def test_heads_are_left_out_in_training_only():
    block, x = make(head_dropout=0.25), random_tokens(64, 12, 8)
    _, kept = block(x, return_head_outputs=True)
    np.testing.assert_allclose(to_numpy(block(x)), to_numpy(make()(x)), atol=1e-6)
    scale = np.array([1, 2, -1, 1], "float32")
    _, dropped = block(x, training=True, return_head_outputs=True, head_scale=scale)
    # (samples, heads), 0 or one factor for all tokens and numbers of a head
    ratios = to_numpy(dropped) / to_numpy(kept) / scale[:, None]
    factors = ratios.mean((1, 3))
    expected = np.broadcast_to(factors[:, None, :, None], ratios.shape)
    np.testing.assert_allclose(ratios, expected, rtol=1e-5)
    left_out = factors == 0
    np.testing.assert_allclose(factors[~left_out], 1 / 0.75, rtol=1e-5)
    # 256 draws: four standard deviations are 0.11.
    assert abs(left_out.mean() - 0.25) < 0.11
    again = to_numpy(block(x, training=True, return_head_outputs=True)[1])
    assert ((again == 0).all((1, 3)) != left_out).any()


def test_a_convolution_of_zeros_changes_nothing():
    plain, block, x = make(), make(mlp_conv=True), random_tokens(2, 12, 8)
    for weight in block.mlp_conv.weights:
        weight.assign(np.zeros(weight.shape))
    np.testing.assert_array_equal(to_numpy(block(x)), to_numpy(plain(x)))


def test_the_convolution_sees_neighbours():
    block, x = make(mlp_conv=True), random_tokens(1, 12, 8)
    hidden = random_tokens(1, 12, 10, seed=1)
    changed = hidden.copy()
    changed[0, 0] += 1
    found = [
        to_numpy(block._convolve(keras.ops.convert_to_tensor(h), None)) for h in (hidden, changed)
    ]
    moved = np.abs(found[1] - found[0]).max(-1).reshape(GRID) > 0
    assert moved[:2, :2].all() and moved.sum() == 4
    model = keras.Sequential([keras.Input(x.shape[1:]), make(mlp_conv=True)])
    other = keras.Sequential([keras.Input(x.shape[1:]), make()])
    assert model.count_params() - other.count_params() == 10 * 10
    assert count_multiply_adds(model) - count_multiply_adds(other) == 12 * 9 * 10


def test_sparse_coding_is_that_of_numpy():
    block, x = make(mlp="ista", attention="subspace"), random_tokens(2, 12, 8)
    dictionary = to_numpy(block.ista.dictionary).astype("float64")
    state = x + to_numpy(block.attention(block.attention_norm(x)))
    state = to_numpy(block.mlp_norm(state)).astype("float64")
    step = np.stack([[dictionary.T @ t - dictionary.T @ dictionary @ t for t in s] for s in state])
    expected = np.maximum(state + 0.1 * step - 0.1 * 0.1, 0)
    np.testing.assert_allclose(to_numpy(block(x)), expected, atol=1e-5)
    # Tokens that are their own code are left alone, but for the threshold.
    block.ista.dictionary.assign(np.eye(8))
    np.testing.assert_allclose(to_numpy(block(x)), np.maximum(state - 0.01, 0), atol=1e-5)
    model = keras.Sequential([keras.Input(x.shape[1:]), block])
    rest = count_multiply_adds(keras.Sequential([keras.Input(x.shape[1:]), block.attention]))
    assert count_multiply_adds(model) - rest == 2 * 12 * 8 * 8
    assert block.count_params() - block.attention.count_params() == 8 * 8 + 4 * 8


@pytest.mark.parametrize("options", [OPTIONS, {"mlp": "ista", "attention": "subspace"}])
def test_layer_checks(options):
    check_layer(make(**options), random_tokens(2, 12, 8))


def test_a_backbone_passes_them_on_and_grows():
    backbone = CCTBackbone(**SMALL | {"blocks": ["conv", "attention"]}, **OPTIONS)
    block, config = backbone.blocks[1], backbone.get_config()
    assert {key: config[key] for key in OPTIONS} == OPTIONS
    assert {key: block.get_config()[key] for key in OPTIONS} == OPTIONS
    x, wider = random_tokens(1, 16, 16), grow(backbone, mlp_dim=24).blocks[1]
    assert tuple(wider.mlp_conv.kernel.shape) == (3, 3, 24, 1)
    np.testing.assert_allclose(to_numpy(wider(x)), to_numpy(block(x)), atol=1e-4)


def test_bad_options():
    with pytest.raises(ValueError, match="head_dropout=1"):
        TransformerBlock(2, 4, head_dropout=1)
    with pytest.raises(ValueError, match="perceptron.*mlp='perceptrn'"):
        TransformerBlock(2, 4, mlp="perceptrn")
    with pytest.raises(ValueError, match="mlp='ista', mlp_conv=False, context_broadcast=True"):
        TransformerBlock(2, 4, mlp="ista", context_broadcast=True)
    with pytest.raises(ValueError, match="mlp='ista'"):
        grow(CCTBackbone(**SMALL, mlp="ista"), num_layers=3)
    with pytest.raises(ValueError, match="grid_shape=None"):
        TransformerBlock(2, 4, mlp_conv=True)
    with pytest.raises(ValueError, match=r"expects 12 tokens.*\(2, 13, 8\)"):
        TransformerBlock(2, 4, mlp_conv=True, grid_shape=GRID)(random_tokens(2, 13, 8))
