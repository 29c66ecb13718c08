import numpy as np
import pytest

from lsmha_keras.layers.sequence_pooling import SequencePooling
from lsmha_keras.layers.stochastic_depth import StochasticDepth
from tests.checks import check_layer, random_tokens, to_numpy


def test_sequence_pooling_matches_numpy():
    x = random_tokens(3, 7, 5)
    layer = SequencePooling(kernel_initializer="random_normal")
    mask = np.arange(7)[None] < np.array([[7], [4], [1]])
    output = to_numpy(layer(x, padding_mask=mask))
    scores = x @ to_numpy(layer.scores.kernel)[:, 0] + to_numpy(layer.scores.bias)
    weights = np.where(mask, np.exp(scores), 0)
    weights /= weights.sum(-1, keepdims=True)
    np.testing.assert_allclose(output, np.einsum("bt,btc->bc", weights, x), atol=1e-5)


def test_sequence_pooling_checks():
    check_layer(SequencePooling(), random_tokens(2, 7, 5))
    with pytest.raises(ValueError, match="batch, tokens, channels"):
        SequencePooling()(random_tokens(2, 7))


def test_stochastic_depth_drops_whole_samples():
    x = np.ones((2000, 3, 4), "float32")
    layer = StochasticDepth(0.25, seed=1)
    output = to_numpy(layer(x, training=True))
    per_sample = output.reshape(2000, -1)
    assert (per_sample == per_sample[:, :1]).all()
    np.testing.assert_allclose(np.unique(per_sample), [0, 1 / 0.75], atol=1e-6)
    # Standard deviation of the share is sqrt(.25 * .75 / 2000) = 0.0097.
    assert abs((per_sample[:, 0] == 0).mean() - 0.25) < 0.05
    np.testing.assert_array_equal(to_numpy(layer(x, training=False)), x)


def test_stochastic_depth_checks():
    check_layer(StochasticDepth(0.25), random_tokens(2, 3, 4))
    with pytest.raises(ValueError, match="rate=1"):
        StochasticDepth(1)
