import ml_dtypes
import numpy as np
import pytest
from keras import ops

from lsmha_keras.layers.sequence_pooling import SequencePooling
from lsmha_keras.layers.stochastic_depth import StochasticDepth
from tests.checks import assert_rounded, check_layer, random_tokens, to_numpy
from tests.layers.test_attention_core import value_and_gradients


def test_sequence_pooling_matches_numpy():
    x = random_tokens(3, 7, 5)
    layer = SequencePooling(kernel_initializer="random_normal")
    mask = np.arange(7)[None] < np.array([[7], [4], [1]])
    output = to_numpy(layer(x, padding_mask=mask))
    scores = x @ to_numpy(layer.scores.kernel)[:, 0] + to_numpy(layer.scores.bias)
    weights = np.where(mask, np.exp(scores), 0)
    weights /= weights.sum(-1, keepdims=True)
    np.testing.assert_allclose(output, np.einsum("bt,btc->bc", weights, x), atol=1e-5)


# Scores up to 3 and up to 300,000, more than float16 holds.
@pytest.mark.parametrize("scale", [1.0, 300.0])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
def test_sequence_pooling_of_masked_images(dtype, scale):
    x, gradient = random_tokens(3, 7, 5) * scale, random_tokens(3, 5, seed=1)
    x, gradient = (to_numpy(ops.cast(array, dtype)) for array in (x, gradient))
    mask = np.array([[True] * 4 + [False] * 3, [False] * 7, [False] * 6 + [True]])
    layer = SequencePooling(dtype=dtype if dtype == "float32" else f"mixed_{dtype}")
    layer.build(x.shape)
    kernel = random_tokens(5, 1, seed=2) * scale
    layer.scores.kernel.assign(kernel)
    output, (by_x,) = value_and_gradients(
        lambda x: layer(ops.cast(x, dtype), padding_mask=mask), [x], ops.cast(gradient, dtype)
    )
    scores = (x.astype("float64") @ kernel)[..., 0]
    scores = np.where(mask, scores, -np.inf)
    scores[1] = 0.0  # Nothing counts: all tokens are weighted alike.
    weights = np.exp(scores - scores.max(-1, keepdims=True))
    weights = (weights / weights.sum(-1, keepdims=True))[..., None]
    by_weights = (x @ gradient[..., None]).astype("float64")
    by_scores = weights * (by_weights - (weights * by_weights).sum(1, keepdims=True))
    by_scores[1] = 0.0
    by_score_magnitudes = weights * np.abs(x).sum(-1, keepdims=True) * np.abs(gradient).max()
    # Inside, everything is float32: sums, and scores whose errors are multiplied.
    largest = np.abs(x @ np.abs(kernel)).max()
    inside = (7 + 10 * largest) * 2**-23 / float(ml_dtypes.finfo(dtype).eps)
    assert_rounded(output, (weights * x).sum(1), dtype, 1 + inside, (weights * np.abs(x)).sum(1))
    # Rounded are the gradients by the scores and by what they weight, and their sum.
    expected = weights * gradient[:, None] + by_scores * kernel[:, 0]
    magnitude = weights * np.abs(gradient[:, None]) + by_score_magnitudes * np.abs(kernel[:, 0])
    assert_rounded(by_x, expected, dtype, 3 + inside, magnitude)


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
