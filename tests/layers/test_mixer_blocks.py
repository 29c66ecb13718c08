"""Spectral and GLMix blocks against NumPy, their identities and their costs."""

import keras
import numpy as np
import pytest

from lsmha_keras.benchmark.multiply_adds import count_multiply_adds
from lsmha_keras.layers.glmix_block import GLMixBlock, slot_averages
from lsmha_keras.layers.spectral_block import SpectralBlock, SpectralFilter
from tests.attention.numpy_kinds import attend, qkv, softmax
from tests.checks import check_layer, random_tokens, to_numpy

GRIDS = [(4, 4), (3, 5), (4, 6)]


def make_filter(grid, channels=3):
    layer = SpectralFilter(grid)
    layer.build((None, grid[0] * grid[1], channels))
    return layer


@pytest.mark.parametrize("grid", GRIDS)
def test_frequencies_times_one_are_the_tokens(grid):
    layer, x = make_filter(grid), random_tokens(2, grid[0] * grid[1], 3)
    layer.frequencies.assign(np.broadcast_to([1.0, 0.0], layer.frequencies.shape))
    np.testing.assert_allclose(to_numpy(layer(x)), x, atol=1e-5)


@pytest.mark.parametrize("grid", GRIDS)
def test_a_filter_is_a_circular_convolution(grid):
    layer, x = make_filter(grid), random_tokens(2, grid[0] * grid[1], 3)
    layer.frequencies.assign(random_tokens(*layer.frequencies.shape, seed=1))
    weights = to_numpy(layer.frequencies).astype("float64") @ [1, 1j]
    kernel = np.fft.irfft2(weights, s=grid, axes=(0, 1))
    image = x.reshape(2, *grid, 3).astype("float64")
    expected = sum(
        kernel[i, j] * np.roll(image, (i, j), axis=(1, 2))
        for i in range(grid[0])
        for j in range(grid[1])
    )
    np.testing.assert_allclose(to_numpy(layer(x)), expected.reshape(x.shape), atol=1e-5)


@pytest.mark.parametrize("grid", GRIDS)
def test_as_many_weights_act_as_there_are_tokens(grid):
    tokens = grid[0] * grid[1]
    weights = 2 * grid[0] * (grid[1] // 2 + 1)
    layer = make_filter(grid, channels=weights)  # each channel has one of the weights
    units = np.eye(weights).reshape(grid[0], -1, 2, weights)
    layer.frequencies.assign(units.transpose(0, 1, 3, 2))
    point = np.zeros((1, tokens, weights), "float32")
    point[:, 0] = 1
    outputs = to_numpy(layer(point))[0]
    assert np.linalg.matrix_rank(outputs, tol=1e-4) == tokens


def test_the_spectral_block_is_one_branch():
    block, x = SpectralBlock((3, 4), mlp_dim=10), random_tokens(2, 12, 6)
    block.build(x.shape)
    branch = block.mlp(block.mlp_norm(block.mixer(block.mixer_norm(x))), training=False)
    np.testing.assert_allclose(to_numpy(block(x)), x + to_numpy(branch), atol=1e-6)
    block.mlp_output.kernel.assign(np.zeros((10, 6)))
    np.testing.assert_array_equal(to_numpy(block(x)), x)


def glmix_mixer(weights, x, tokens, grid, slots):
    """What GLMix does with the normalised tokens `x`, in float64, from its definition."""
    height, width, channels = *grid, x.shape[-1]
    image = tokens.reshape(-1, height, width, channels)
    rows, columns = height // slots[0], width // slots[1]
    averages = np.stack(
        [
            image[:, i * rows : (i + 1) * rows, j * columns : (j + 1) * columns].mean((1, 2))
            for i in range(slots[0])
            for j in range(slots[1])
        ],
        axis=1,
    )
    unit = [v / np.linalg.norm(v, axis=-1, keepdims=True) for v in (averages, x)]
    logits = weights["scale"] * unit[0] @ unit[1].transpose(0, 2, 1)
    groups = softmax(logits) @ x
    attention = {k.removeprefix("attention/"): v for k, v in weights.items()}
    heads = attend(*qkv(attention, groups, heads=2)).transpose(0, 2, 1, 3)
    groups = heads.reshape(groups.shape) @ attention["projection/kernel"]
    groups = groups + attention["projection/bias"]
    spread = softmax(logits.transpose(0, 2, 1)) @ groups
    local = x @ weights["local_in/kernel"] + weights["local_in/bias"]
    padded = np.pad(local.reshape(image.shape), ((0, 0), (2, 2), (2, 2), (0, 0)))
    local = weights["local_conv/bias"] + sum(
        padded[:, i : i + height, j : j + width] * weights["local_conv/kernel"][i, j, :, 0]
        for i in range(5)
        for j in range(5)
    )
    local = local.reshape(x.shape) @ weights["local_out/kernel"] + weights["local_out/bias"]
    return spread + local


def make_glmix(slots=(2, 2), grid=(4, 6)):
    block = GLMixBlock(2, mlp_dim=10, grid_shape=grid, slot_shape=slots)
    block.build((None, grid[0] * grid[1], 6))
    for i, weight in enumerate(block.mixer.trainable_weights):
        weight.assign(to_numpy(weight) + 0.3 * random_tokens(*weight.shape, seed=i))
    return block


def test_glmix_is_that_of_numpy():
    block = make_glmix()
    x, tokens = random_tokens(2, 24, 6), random_tokens(2, 24, 6, seed=1)
    prefix = len(block.mixer.path) + 1
    weights = {
        w.path[prefix:]: to_numpy(w).astype("float64") for w in block.mixer.trainable_weights
    }
    expected = glmix_mixer(weights, x.astype("float64"), tokens, (4, 6), (2, 2))
    np.testing.assert_allclose(to_numpy(block.mixer(x, tokens)), expected, rtol=1e-4, atol=1e-4)


def test_one_slot_gives_every_token_the_same():
    block, x = make_glmix(slots=(1, 1)), random_tokens(2, 24, 6)
    for weight in block.mixer.local_out.weights:
        weight.assign(np.zeros(weight.shape))
    mixed = to_numpy(block.mixer(x, x))
    np.testing.assert_allclose(mixed, np.broadcast_to(mixed[:, :1], mixed.shape), atol=1e-5)


def test_slots_are_averages_as_in_pytorch():
    torch = pytest.importorskip("torch")
    image = random_tokens(1, 1, 7, 5)
    expected = torch.nn.functional.adaptive_avg_pool2d(torch.tensor(image), (4, 3)).numpy()
    np.testing.assert_allclose(
        slot_averages((7, 5), (4, 3)) @ image.ravel(), expected.ravel(), atol=1e-6
    )


def test_layer_checks():
    check_layer(
        SpectralBlock((3, 4), mlp_dim=10, stochastic_depth_rate=0.1), random_tokens(2, 12, 6)
    )
    check_layer(
        GLMixBlock(2, mlp_dim=10, grid_shape=(3, 4), slot_shape=(2, 2), dropout_rate=0.1),
        random_tokens(2, 12, 6),
    )


# For tokens of width 128 on an 8 x 8 grid, a perceptron of 256, 16 heads of width 8, 16 slots.
MLP, NORMS = 2 * 128 * 256 + 256 + 128, 4 * 128
ATTENTION = 4 * 16 * 128 * 128 + 2 * 16 * 16 * 128
COSTS = [
    # 8 x 5 complex numbers a channel. Rows to 5 frequencies, columns of them, and both back.
    (
        SpectralBlock((8, 8), mlp_dim=256),
        10_240 + MLP + NORMS,
        128 * 2 * (8 * 8 * 2 * 5 + 8 * 8 * 4 * 5) + 64 * 2 * 128 * 256,
    ),
    # Attention of 16 tokens, two dense layers, 25 numbers and a bias a channel, one number.
    (
        GLMixBlock(16, mlp_dim=256, grid_shape=(8, 8)),
        65_664 + 2 * (128 * 128 + 128) + 26 * 128 + 1 + MLP + NORMS,
        ATTENTION + 3 * 64 * 16 * 128 + 64 * (2 * 128 * 128 + 25 * 128 + 2 * 128 * 256),
    ),
]


@pytest.mark.parametrize("block, parameters, multiply_adds", COSTS)
def test_costs(block, parameters, multiply_adds):
    model = keras.Sequential([keras.Input((64, 128)), block])
    assert model.count_params() == parameters
    assert count_multiply_adds(model) == multiply_adds


def test_bad_arguments():
    with pytest.raises(ValueError, match=r"`SpectralBlock` of grid \(3, 4\) expects"):
        SpectralBlock((3, 4), mlp_dim=8)(random_tokens(2, 13, 6))
    with pytest.raises(ValueError, match=r"slot_shape=\(4, 4\), grid_shape=\(3, 4\)"):
        GLMixBlock(2, mlp_dim=8, grid_shape=(3, 4))
    with pytest.raises(ValueError, match="mho"):
        GLMixBlock(2, 8, (4, 4), attention="mho").build((None, 16, 8))
