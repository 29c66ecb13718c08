import numpy as np
import pytest

from lsmha_keras.layers.depthwise_conv import DepthwiseConv
from tests.checks import check_layer, random_tokens, to_numpy


@pytest.mark.parametrize("kernel_size", [1, 2, 3, 5])
@pytest.mark.parametrize("use_bias", [False, True])
def test_matches_a_loop_over_kernel_and_image(kernel_size, use_bias):
    x = random_tokens(2, 4, 6, 3)
    layer = DepthwiseConv(kernel_size, use_bias=use_bias)
    layer.build(x.shape)
    kernel = layer.get_weights()[0][..., 0].astype("float64")
    expected = np.zeros(x.shape)
    if use_bias:
        layer.bias.assign([1.0, 2.0, 3.0])
        expected += [1.0, 2.0, 3.0]
    output = to_numpy(layer(x))
    before = (kernel_size - 1) // 2  # "same" pads the rest at the end
    for row, column in np.ndindex(4, 6):
        for i, j in np.ndindex(kernel_size, kernel_size):
            r, c = row + i - before, column + j - before
            if 0 <= r < 4 and 0 <= c < 6:
                expected[:, row, column] += x[:, r, c] * kernel[i, j]
    np.testing.assert_allclose(output, expected, atol=1e-5)


def test_layer_checks():
    check_layer(DepthwiseConv(3), random_tokens(2, 5, 6, 4))
