import keras
import numpy as np
import pytest

from lsmha_keras.layers.conv_norm import ConvNorm
from tests.checks import check_layer, random_tokens, to_numpy

KINDS = [
    {"filters": 5},
    {"filters": 1, "kernel_size": 1},
    {"filters": None},
    {"filters": None, "parallel": True},
    {"filters": 4, "parallel": True},
    {"filters": 4, "kernel_size": 2, "parallel": True},
    {"filters": 4, "kernel_size": 5, "parallel": True},
]


def randomise(layer, seed=0):
    """Gives every weight a value that a wrong fold would show.

    Variances are positive, and some so small that the epsilon beside them counts.
    """
    rng = np.random.default_rng(seed)
    for weight in layer.weights:
        values = rng.uniform(0.5, 1.5, weight.shape)
        weight.assign(10 ** (4 * values - 6) if "variance" in weight.path else values)


def assert_same_sums(found, expected):
    """Sums of at most 100 products, of a 5 x 5 kernel with 4 channels, differ by rounding."""
    largest = np.abs(expected).max()
    np.testing.assert_allclose(found, expected, rtol=0, atol=100 * 2.0**-23 * largest)


@pytest.mark.parametrize("kind", KINDS)
def test_folded_gives_the_same(kind):
    x = random_tokens(2, 5, 6, 4)
    layer = ConvNorm(**kind)
    layer.build(x.shape)
    randomise(layer)
    folded = ConvNorm(**kind, fused=True)
    folded.build(x.shape)
    folded.set_weights(layer.fused_weights())
    expected = to_numpy(layer(x, training=False))
    assert_same_sums(to_numpy(folded(x)), expected)
    assert [w.shape for w in folded.weights] == [w.shape for w in folded.fused_weights()]


def test_three_branches_match_pytorch():
    torch = pytest.importorskip("torch")
    x = random_tokens(2, 5, 6, 4)
    layer = ConvNorm(4, parallel=True)
    layer.build(x.shape)
    randomise(layer)
    # (batch, height, width, channels) -> (batch, channels, height, width)
    images = torch.tensor(x).permute(0, 3, 1, 2)
    expected = 0
    for conv, norm in layer._branches:
        branch = images
        if conv.weights:
            kernel = torch.tensor(to_numpy(conv.kernel).transpose(3, 2, 0, 1))
            branch = torch.nn.functional.conv2d(images, kernel, padding=kernel.shape[-1] // 2)
        mean, variance, gamma, beta = (
            torch.tensor(to_numpy(w))
            for w in (norm.moving_mean, norm.moving_variance, norm.gamma, norm.beta)
        )
        expected += torch.nn.functional.batch_norm(branch, mean, variance, gamma, beta, eps=1e-5)
    expected = expected.permute(0, 2, 3, 1).numpy()
    assert_same_sums(to_numpy(layer(x, training=False)), expected)


@pytest.mark.parametrize("kind", [KINDS[0], KINDS[3], {"filters": 4, "fused": True}])
def test_layer_checks(kind):
    check_layer(ConvNorm(**kind), random_tokens(2, 5, 6, 4))


def test_statistics_follow_the_data_in_training():
    layer = ConvNorm(3)
    x = keras.ops.convert_to_tensor(random_tokens(8, 5, 6, 4) + 3)
    before = to_numpy(layer(x, training=False))
    layer(x, training=True)
    assert np.abs(to_numpy(layer(x, training=False)) - before).max() > 0.01


def test_bad_arguments():
    with pytest.raises(ValueError, match="kernel_size=0"):
        ConvNorm(4, kernel_size=0)
    with pytest.raises(ValueError, match="filters=-1"):
        ConvNorm(-1)
    with pytest.raises(ValueError, match="filters=5, 4 channels"):
        ConvNorm(5, parallel=True)(random_tokens(2, 5, 6, 4))
