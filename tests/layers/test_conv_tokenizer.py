import numpy as np
import pytest

from lsmha_keras.layers.conv_tokenizer import ConvTokenizer
from tests.checks import check_layer, random_tokens, to_numpy


@pytest.mark.parametrize(
    "shape, layers, kernel, tokens",
    [
        ((32, 32), 1, 3, 256),
        ((32, 32), 2, 3, 64),
        ((64, 48), 2, 7, 12),
        ((33, 17), 1, 3, 17 * 9),
        ((20, 20), 1, 4, 11 * 11),
    ],
)
def test_matches_pytorch(shape, layers, kernel, tokens):
    torch = pytest.importorskip("torch")
    x = random_tokens(2, *shape, 3)
    layer = ConvTokenizer(hidden_dim=8, num_layers=layers, kernel_size=kernel, num_filters=6)
    output = to_numpy(layer(x))
    y = torch.tensor(x.transpose(0, 3, 1, 2))
    for conv in layer.convs:
        weight = torch.tensor(to_numpy(conv.kernel).transpose(3, 2, 0, 1))
        stride, padding = max(1, kernel // 2 - 1), max(1, kernel // 2)
        y = torch.nn.functional.conv2d(y, weight, stride=stride, padding=padding)
        y = torch.nn.functional.max_pool2d(y.relu(), 3, 2, 1)
    expected = y.flatten(2).transpose(1, 2).numpy()
    assert output.shape[1] == tokens
    np.testing.assert_allclose(output, expected, atol=1e-4)


def test_layer_checks():
    check_layer(ConvTokenizer(8, num_layers=2, num_filters=6), random_tokens(2, 16, 12, 3))


@pytest.mark.parametrize("design", ["separable", "inverted_bottleneck"])
@pytest.mark.parametrize("layers, kernel", [(1, 3), (2, 3), (3, 5)])
def test_folded_design_gives_the_same(design, layers, kernel):
    x = random_tokens(2, 16, 12, 3)
    settings = {"num_layers": layers, "kernel_size": kernel, "num_filters": 6, "design": design}
    layer = ConvTokenizer(8, **settings)
    layer.build(x.shape)
    rng = np.random.default_rng(0)
    layer.set_weights([rng.uniform(0.5, 1.5, w.shape).astype("float32") for w in layer.weights])
    folded = ConvTokenizer(8, **settings, fused=True)
    folded.build(x.shape)
    folded.set_weights(layer.fused_weights())
    np.testing.assert_allclose(to_numpy(folded(x)), to_numpy(layer(x)), rtol=1e-4, atol=1e-4)
    assert not any("norm" in weight.path for weight in folded.weights)


@pytest.mark.parametrize("design", ["separable", "inverted_bottleneck"])
def test_folded_design_matches_pytorch(design):
    torch = pytest.importorskip("torch")
    x = random_tokens(2, 16, 12, 3)
    layer = ConvTokenizer(8, num_layers=2, num_filters=6, design=design, fused=True)
    output = to_numpy(layer(x))
    y = torch.tensor(x.transpose(0, 3, 1, 2))

    def convolve(y, index):
        kernel, bias = (torch.tensor(to_numpy(w)) for w in layer.convs[index].weights)
        depthwise = layer.convs[index].filters is None
        order = (2, 3, 0, 1) if depthwise else (3, 2, 0, 1)
        groups = y.shape[1] if depthwise else 1
        weight = kernel.permute(order)
        return torch.nn.functional.conv2d(
            y, weight, bias, padding=weight.shape[-1] // 2, groups=groups
        )

    def pool(y):
        return torch.nn.functional.max_pool2d(y.relu(), 3, 2, 1)

    y = pool(convolve(y, 0))
    if design == "separable":
        y = pool(convolve(convolve(y, 1), 2))
    else:
        y = pool(convolve(convolve(convolve(y, 1).relu(), 2).relu(), 3))
    expected = y.flatten(2).transpose(1, 2).numpy()
    np.testing.assert_allclose(output, expected, atol=1e-4)


def test_designs_save_weights():
    """Weights by hand: a 3x3 stem 3 -> 6, then to 8; each normalisation has four per channel."""
    counts = {
        "plain": 27 * 6 + 9 * 6 * 8,
        "separable": 27 * 6 + 9 * 6 + 6 * 8 + 4 * (6 + 6 + 8),
        "inverted_bottleneck": 27 * 6 + 6 * 12 + 9 * 12 + 12 * 8 + 4 * (6 + 12 + 12 + 8),
    }
    for design, count in counts.items():
        layer = ConvTokenizer(8, num_layers=2, num_filters=6, design=design)
        layer.build((None, 16, 16, 3))
        assert layer.count_params() == count


@pytest.mark.parametrize("design", ["separable", "inverted_bottleneck"])
def test_design_layer_checks(design):
    layer = ConvTokenizer(8, num_layers=2, num_filters=6, design=design)
    check_layer(layer, random_tokens(2, 16, 12, 3))


def test_bad_arguments():
    with pytest.raises(ValueError, match="num_layers=0"):
        ConvTokenizer(8, num_layers=0)
    with pytest.raises(ValueError, match="design='dense'"):
        ConvTokenizer(8, design="dense")
    with pytest.raises(ValueError, match="kernel_size=7"):
        ConvTokenizer(8, kernel_size=7, design="separable")
    with pytest.raises(ValueError, match="batch, height, width, channels"):
        ConvTokenizer(8)(random_tokens(2, 16, 3))
    with pytest.raises(ValueError, match="leaves no token"):
        ConvTokenizer(8, kernel_size=7, num_layers=3).grid_shape((None, 0, 4, 3))
