import numpy as np
import pytest

from lsmha_keras.layers.conv_block import DESIGNS, ConvBlock
from tests.checks import check_layer, random_tokens, to_numpy
from tests.layers.test_conv_norm import randomise


def test_full_design_matches_pytorch():
    torch = pytest.importorskip("torch")
    x = random_tokens(2, 12, 6)
    block = ConvBlock((3, 4), design="full")
    output = to_numpy(block(x, training=False))
    grid = torch.tensor(x).reshape(2, 3, 4, 6).permute(0, 3, 1, 2)
    (kernel,) = (w for w in block.weights if w.path.endswith("kernel"))
    weight = torch.tensor(to_numpy(kernel).transpose(3, 2, 0, 1))
    branch = torch.nn.functional.conv2d(grid, weight, padding=1)
    # Untrained batch normalisation: mean 0, variance 1, epsilon 1e-5.
    branch = torch.nn.functional.gelu(branch / (1 + 1e-5) ** 0.5)
    expected = x + branch.permute(0, 2, 3, 1).reshape(2, 12, 6).numpy()
    np.testing.assert_allclose(output, expected, atol=1e-5)


@pytest.mark.parametrize("design", DESIGNS)
def test_folded_gives_the_same(design):
    x = random_tokens(2, 12, 6)
    block = ConvBlock((3, 4), design=design)
    block.build(x.shape)
    for i, conv in enumerate(block.convs):
        randomise(conv, seed=i)
    folded = ConvBlock((3, 4), design=design, fused=True)
    folded.build(x.shape)
    folded.set_weights(block.fused_weights())
    expected = to_numpy(block(x, training=False))
    np.testing.assert_allclose(to_numpy(folded(x)), expected, rtol=1e-4, atol=1e-3)
    assert len(folded.weights) == 2 * len(block.convs)  # kernels and biases only


@pytest.mark.parametrize("design", DESIGNS)
def test_layer_checks(design):
    check_layer(
        ConvBlock((3, 4), design=design, stochastic_depth_rate=0.1), random_tokens(2, 12, 6)
    )


def test_designs_mix_neighbours_only():
    x = random_tokens(1, 30, 4)
    changed = x.copy()
    changed[0, 0] += 1  # the corner of the grid
    for design in DESIGNS:
        block = ConvBlock((5, 6), design=design)
        block.build(x.shape)
        for conv in block.convs:
            randomise(conv)
        for weight in block.weights:  # Far from zero, GELU hides a change.
            if "variance" in weight.path:
                weight.assign(np.ones(weight.shape))
        moved = np.abs(to_numpy(block(changed)) - to_numpy(block(x))).max(axis=-1)[0] > 1e-6
        assert moved.reshape(5, 6)[:2, :2].all() and moved.sum() == 4, design


def test_bad_arguments():
    with pytest.raises(ValueError, match=r"grid \(3, 4\) expects"):
        ConvBlock((3, 4))(random_tokens(2, 13, 6))
    with pytest.raises(ValueError, match="kernel_size=0"):
        ConvBlock((3, 4), kernel_size=0)
    with pytest.raises(ValueError, match="design='dense'"):
        ConvBlock((3, 4), design="dense")
    with pytest.raises(ValueError, match=r"grid_shape=\(3, 0\)"):
        ConvBlock((3, 0))
