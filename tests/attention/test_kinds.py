"""What every kind of attention promises; a registered kind is tested by being registered."""

import keras
import numpy as np
import pytest
from keras import ops

from lsmha_keras.attention.registry import attention_names, make_attention
from lsmha_keras.benchmark.multiply_adds import count_multiply_adds
from tests.attention import numpy_kinds
from tests.attention.numpy_kinds import GRID, HEADS, TOKENS, WIDTH
from tests.checks import check_layer, random_tokens, to_numpy

CHANNELS = HEADS * WIDTH
NAMES = attention_names()
WITHOUT_PADDING = ("super", "hilo", "normlin")
WITHOUT_SCORES = ("normlin",)


def make(name, **arguments):
    options = arguments.pop("options", numpy_kinds.OPTIONS.get(name))
    layer = make_attention(
        name,
        HEADS,
        grid_shape=GRID,
        options=options,
        kernel_initializer=keras.initializers.RandomNormal(stddev=0.3),
        **arguments,
    )
    layer(tokens())
    for i, weight in enumerate(layer.trainable_weights):  # Zeros and identities hide mistakes.
        weight.assign(to_numpy(weight) + 0.2 * random_tokens(*weight.shape, seed=i + 1))
    return layer


def tokens(batch=2):
    return random_tokens(batch, TOKENS, CHANNELS)


def named_weights(layer):
    """Weights in float64 by what their paths say after the layer's own name."""
    prefix = len(layer.path) + 1
    return {w.path[prefix:]: to_numpy(w).astype("float64") for w in layer.trainable_weights}


def gradients(layer, x, direction):
    """Gradients of the sum of `direction * output`, by the weights."""
    weights, backend = layer.trainable_weights, keras.config.backend()
    if backend == "tensorflow":
        import tensorflow as tf

        with tf.GradientTape() as tape:
            loss = ops.sum(layer(x) * direction)
        found = tape.gradient(loss, [w.value for w in weights])
    elif backend == "jax":
        import jax

        fixed = [w.value for w in layer.non_trainable_variables]

        def loss(values):
            return ops.sum(layer.stateless_call(values, fixed, x)[0] * direction)

        found = jax.grad(loss)([w.value for w in weights])
    else:
        import torch

        loss = ops.sum(layer(x) * ops.convert_to_tensor(direction))
        found = torch.autograd.grad(loss, [w.value for w in weights])
    return [to_numpy(gradient) for gradient in found]


@pytest.mark.parametrize("name", numpy_kinds.KINDS)
def test_values_and_gradients_are_those_of_float64(name):
    layer, x = make(name), tokens()
    weights = named_weights(layer)
    output, heads = layer(x, return_head_outputs=True)
    expected = numpy_kinds.run(name, weights, x.astype("float64"))
    # Few dozen float32 operations in a row, of values around one.
    for found, value in zip((output, heads), expected, strict=True):
        np.testing.assert_allclose(to_numpy(found), value, rtol=1e-4, atol=1e-4)

    direction = random_tokens(*x.shape, seed=5)

    def loss(changed):
        return np.sum(numpy_kinds.run(name, changed, x.astype("float64"))[0] * direction)

    rng = np.random.default_rng(0)
    for (key, weight), gradient in zip(
        weights.items(), gradients(layer, x, direction), strict=True
    ):
        step = rng.normal(size=weight.shape)
        step *= 1e-6 / np.linalg.norm(step)
        numeric = loss({**weights, key: weight + step}) - loss({**weights, key: weight - step})
        # Of central differences in float64 six digits are right here, of float32 as many.
        scale = np.linalg.norm(gradient) * np.linalg.norm(step)
        assert abs(np.sum(gradient * step) - numeric / 2) <= 1e-4 * scale, key


@pytest.mark.parametrize("name", NAMES)
def test_layer_checks(name):
    check_layer(make(name, dropout=0.1), tokens(), tolerance=1e-5)


@pytest.mark.parametrize("name", NAMES)
def test_heads_sum_to_the_output_and_obey_mask_and_scale(name):
    layer, x = make(name), tokens()
    scale = np.linspace(-2, 2, HEADS).astype("float32")
    mask = np.linspace(0, 1, HEADS).astype("float32")
    _, heads = layer(x, return_head_outputs=True)
    output, changed = layer(x, head_mask=mask, head_scale=scale, return_head_outputs=True)
    np.testing.assert_allclose(
        to_numpy(changed), to_numpy(heads) * (mask * scale)[:, None], atol=1e-4
    )
    kernel, bias = (to_numpy(w) for w in layer.projection.weights)
    summed = np.einsum("bthd,hdc->btc", to_numpy(changed), kernel.reshape(HEADS, WIDTH, CHANNELS))
    np.testing.assert_allclose(to_numpy(output), summed + bias, atol=1e-4)
    with pytest.raises(ValueError, match="head_scale of shape"):
        layer(x, head_scale=scale[1:])


@pytest.mark.parametrize("name", NAMES)
def test_padding_does_not_change_what_valid_tokens_see(name):
    layer, x = make(name), tokens()
    mask = np.arange(TOKENS)[None] < np.array([[TOKENS], [9]])
    if name in WITHOUT_PADDING:
        with pytest.raises(ValueError, match="no mask"):
            layer(x, padding_mask=mask)
        return
    other = np.where(mask[..., None], x, 100 * random_tokens(*x.shape, seed=3))
    found, expected = (to_numpy(layer(t, padding_mask=mask)) for t in (other, x))
    np.testing.assert_allclose(found[mask], expected[mask], atol=1e-4)
    empty = layer(x, padding_mask=np.zeros_like(mask))
    assert np.isfinite(to_numpy(empty)).all()


@pytest.mark.parametrize("name", NAMES)
def test_scores_are_weights_over_tokens(name):
    layer, x = make(name), tokens()
    if name in WITHOUT_SCORES:
        with pytest.raises(ValueError, match="no scores"):
            layer(x, return_attention_scores=True)
        return
    output, scores = layer(x, return_attention_scores=True)
    assert tuple(scores.shape) == (2, HEADS, TOKENS, TOKENS)
    if name != "talking":  # whose weights are mixed, and then sum to the mixing's rows
        np.testing.assert_allclose(to_numpy(scores).sum(-1), 1, atol=1e-5)
    np.testing.assert_allclose(to_numpy(output), to_numpy(layer(x)), atol=1e-4)


@pytest.mark.parametrize("name", NAMES)
def test_plain_attention_and_back(name):
    plain = make("multi_head")
    new = type(make(name)).from_multi_head(
        plain, approximate=True, **_all_options(name), **_grid(name)
    )
    assert np.isfinite(to_numpy(new(tokens()))).all()
    if name == "normlin":
        with pytest.raises(ValueError, match="no queries"):
            new.to_multi_head()
        return
    # What a kind says is exact is so.
    try:
        back = new.to_multi_head()
    except ValueError as error:
        assert "approximate=True" in str(error)
        back = None
    if back is not None:
        np.testing.assert_allclose(to_numpy(back(tokens())), to_numpy(new(tokens())), atol=1e-4)


def _all_options(name):
    from lsmha_keras.attention.registry import find_attention

    return {**find_attention(name).options, **numpy_kinds.OPTIONS.get(name, {})}


def _grid(name):
    return {"grid_shape": GRID} if "grid_shape" in make(name).get_config() else {}


# Parameters and million multiply-adds of one layer, for tokens of width 128 on an 8 x 8 grid and 16
# heads of width 8, counted by hand from the kinds' definitions and not by the layers.
COSTS = {
    "multi_head": (65_664, 5.24),
    "multi_query": (34_944, 3.28),
    # Groups of four heads.
    "grouped": (41_088, 3.67),
    "moh": (67_968, 5.39),
    # All experts computed: 128 x (2 x 8 + 2 x 128 + 16) a token, and two products of 128.
    "moa": (36_992, 3.41),
    # The gate, once an image: 128 x 64 and 64 x 16, with biases.
    "mae": (74_960, 5.25),
    "knocking_gated": (65_856, 5.44),
    "knocking": (65_856, 5.44),
    "talking": (66_176, 7.34),
    # Two maps a head: 2 x 2 x 16 x 16 parameters; keys mixed, 64 x 2 x 16 x 128, one more product
    # of 128 a pair of tokens, and 2 x 16 x 16.
    "eit": (66_688, 8.13),
    "optimised": (49_280, 4.19),
    "efficient": (32_896, 3.15),
    "super": (36_992, 3.67),
    "clustered": (41_088, 3.28),
    "subspace": (32_896, 3.15),
    "head_embedding": (19_968, 2.29),
    "windows": (65_664, 5.24),
    "sparse": (65_664, 5.24),
    # 128 x 3 x 64 and 128 x 64 for all tokens, 128 x 2 x 64 for a quarter, a projection; then
    # scores and values of four tokens for half of the heads, and of 16 for the others.
    "hilo": (65_664, 3.57),
    # Values and projection, 16 x 64 x 64 weights, and one product with them.
    "normlin": (32_896 + 65_536, 2.62),
}


@pytest.mark.parametrize("name", COSTS)
def test_cost(name):
    layer = make_attention(name, 16, grid_shape=(8, 8))
    inputs = keras.Input((64, 128))
    model = keras.Model(inputs, layer(inputs))
    parameters, millions = COSTS[name]
    assert sum(int(np.prod(w.shape)) for w in layer.trainable_weights) == parameters
    assert round(count_multiply_adds(model) / 1e6, 2) == millions
