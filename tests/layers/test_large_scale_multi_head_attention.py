import keras
import numpy as np
import pytest
from keras import ops

from lsmha_keras.layers.large_scale_multi_head_attention import LargeScaleMultiHeadAttention
from tests import reference
from tests.checks import check_layer, random_tokens, to_numpy


def build(x, **kwargs):
    layer = LargeScaleMultiHeadAttention(
        kernel_initializer=keras.initializers.RandomNormal(stddev=0.3), **kwargs
    )
    layer(x)
    return layer


@pytest.mark.parametrize(
    "kwargs",
    [
        {"num_heads": 1},
        {"num_heads": 4},
        {"num_heads": 32},
        {"num_heads": 5, "head_dim": 7},
        {"num_heads": 4, "use_qkv_bias": True, "use_output_bias": False},
    ],
)
def test_matches_numpy_reference(kwargs):
    x = random_tokens(2, 13, 32)
    layer = build(x, **kwargs)
    for weight in layer.weights:  # Biases start at zero, which would hide them.
        weight.assign(random_tokens(*weight.shape, seed=len(weight.path)) * 0.3)
    mask = np.arange(13)[None] < np.array([[13], [9]])
    head_mask = np.linspace(0, 1, layer.num_heads)
    expected = reference.attention(x, layer, head_mask, mask)
    outputs = layer(
        x,
        head_mask=head_mask,
        padding_mask=mask,
        return_head_outputs=True,
        return_attention_scores=True,
    )
    for output, value in zip(outputs, expected, strict=True):
        np.testing.assert_allclose(to_numpy(output), value, atol=1e-5, rtol=1e-5)
    # The fused path, taken when nobody asks for the scores.
    np.testing.assert_allclose(
        to_numpy(layer(x, head_mask=head_mask, padding_mask=mask)), expected[0], atol=1e-5
    )


def test_sum_of_head_contributions_is_the_output():
    x = random_tokens(2, 9, 24)
    layer = build(x, num_heads=6)
    output, heads = layer(x, return_head_outputs=True)
    kernel = to_numpy(layer.projection.kernel).reshape(6, 4, 24)
    contributions = np.einsum("bthd,hdc->bthc", to_numpy(heads), kernel)
    expected = contributions.sum(2) + to_numpy(layer.projection.bias)
    np.testing.assert_allclose(to_numpy(output), expected, atol=1e-5)


def test_batched_head_mask_acts_per_sample():
    x = random_tokens(3, 9, 24)
    layer = build(x, num_heads=6)
    masks = np.random.default_rng(1).uniform(size=(3, 6))
    batched = to_numpy(layer(x, head_mask=masks))
    assert np.abs(batched - to_numpy(layer(x))).max() > 0.01
    for i in range(3):
        alone = to_numpy(layer(x[i : i + 1], head_mask=masks[i]))
        np.testing.assert_allclose(batched[i : i + 1], alone, atol=1e-6)


def test_layer_checks():
    x = random_tokens(2, 10, 24)
    check_layer(build(x, num_heads=5, head_dim=3, dropout=0.1), x)


def test_functional_use_with_flags():
    inputs = keras.Input((10, 24))
    layer = LargeScaleMultiHeadAttention(num_heads=4)
    outputs = layer(inputs, return_head_outputs=True, return_attention_scores=True)
    assert [tuple(o.shape) for o in outputs] == [
        (None, 10, 24),
        (None, 10, 4, 6),
        (None, 4, 10, 10),
    ]
    model = keras.Model(inputs, outputs)
    x = random_tokens(2, 10, 24)
    for output, value in zip(model(x), reference.attention(x, layer), strict=True):
        np.testing.assert_allclose(to_numpy(output), value, atol=1e-5)


def test_inference_keeps_no_scores_with_any_dropout(monkeypatch):
    x = random_tokens(2, 10, 24)
    layer = build(x, num_heads=4, dropout=0.5)
    # What the path with scores, and nothing else, calls.
    monkeypatch.setattr(ops, "softmax", None)
    output = to_numpy(layer(x, training=False))
    np.testing.assert_allclose(output, reference.attention(x, layer)[0], atol=1e-5)


def test_dropout_only_in_training_and_unbiased():
    x = random_tokens(1, 16, 8)
    layer = build(x, num_heads=2, dropout=0.3, seed=3)
    expected = to_numpy(layer(x, training=False))
    # Each sample of a batch has dropout of its own.
    draws = to_numpy(layer(np.repeat(x, 400, axis=0), training=True))
    assert np.abs(draws[0] - expected).max() > 1e-3
    # The standard error of the mean is below draws.std() / 20.
    np.testing.assert_allclose(draws.mean(0), expected[0], atol=5 * draws.std(0).max() / 20)


def test_softmax_in_float32_under_half_precision(monkeypatch):
    softmax, dtypes = ops.softmax, []

    def record(x, **kwargs):
        dtypes.append(keras.backend.standardize_dtype(x.dtype))
        return softmax(x, **kwargs)

    monkeypatch.setattr(ops, "softmax", record)
    x = random_tokens(1, 6, 8)
    layer = build(x, num_heads=1, dtype="mixed_bfloat16")
    dtypes.clear()
    scores = layer(x, return_attention_scores=True)[1]
    assert dtypes == ["float32"]
    assert keras.backend.standardize_dtype(scores.dtype) == "bfloat16"


def test_fully_masked_row_stays_finite():
    x = random_tokens(1, 6, 8)
    layer = build(x, num_heads=2)
    output = layer(x, padding_mask=np.zeros((1, 6), bool), return_attention_scores=True)[0]
    assert np.isfinite(to_numpy(output)).all()


@pytest.mark.parametrize(
    "kwargs, message",
    [
        ({"num_heads": 0}, "num_heads=0"),
        ({"num_heads": 2.5}, "num_heads=2.5"),
        ({"num_heads": 4, "head_dim": -1}, "head_dim=-1"),
        ({"num_heads": 4, "dropout": 1.0}, "dropout=1.0"),
    ],
)
def test_bad_arguments(kwargs, message):
    with pytest.raises(ValueError, match=message):
        LargeScaleMultiHeadAttention(**kwargs)


def test_bad_inputs():
    x = random_tokens(2, 10, 24)
    with pytest.raises(ValueError, match="num_heads=7, token width 24"):
        LargeScaleMultiHeadAttention(num_heads=7)(x)
    with pytest.raises(ValueError, match="batch, tokens, channels"):
        LargeScaleMultiHeadAttention(num_heads=4)(x[0])
    layer = build(x, num_heads=4)
    with pytest.raises(ValueError, match=r"shape \(4,\) or \(batch, 4\)"):
        layer(x, head_mask=np.ones(5))
    with pytest.raises(ValueError, match=r"in \[0, 1\]"):
        layer(x, head_mask=[0, 1, 2, 1])
    with pytest.raises(ValueError, match=r"shape \(batch, 10\)"):
        layer(x, padding_mask=np.ones((2, 9), bool))
