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


def test_bad_arguments():
    with pytest.raises(ValueError, match="num_layers=0"):
        ConvTokenizer(8, num_layers=0)
    with pytest.raises(ValueError, match="batch, height, width, channels"):
        ConvTokenizer(8)(random_tokens(2, 16, 3))
    with pytest.raises(ValueError, match="leaves no token"):
        ConvTokenizer(8, kernel_size=7, num_layers=3).grid_shape((None, 0, 4, 3))
