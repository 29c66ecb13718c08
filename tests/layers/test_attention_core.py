import importlib

import keras
import ml_dtypes
import numpy as np
import pytest
from keras import ops

from lsmha_keras.layers.attention_core import attention_core
from tests.checks import assert_rounded, random_tokens, to_numpy, value_and_gradients


def attention_module():
    """The module of the backend's own attention."""
    return importlib.import_module(f"lsmha_keras.layers.{keras.config.backend()}_attention")


def set_group(monkeypatch, group_bytes):
    """Chooses how many bytes of scores the loops take at a time, and makes them loop."""
    module = attention_module()
    monkeypatch.setattr(module, "GROUP_BYTES", group_bytes)
    monkeypatch.setattr(module, "MIN_LOOP_BYTES", 0, raising=False)


def reference(query, key, value, gradient, mask=None, keep=None, cancel=True):
    """Output and gradients of attention in float64; `keep` is what dropout multiplies by.

    Without `cancel` the terms of all sums but the scores' are replaced by their absolute values.
    Images in which everything is masked attend to all keys alike.
    """
    query, key, value, gradient = (np.asarray(x, "float64") for x in (query, key, value, gradient))
    scale = query.shape[-1] ** -0.5
    scores = np.einsum("bhqd,bhkd->bhqk", query, key) * scale
    some = np.ones(len(query), bool) if mask is None else mask.any(-1)
    if mask is not None:
        scores = np.where(mask[:, None, None, :], scores, -np.inf)
        scores[~some] = 0.0
    weights = np.exp(scores - scores.max(-1, keepdims=True))
    weights /= weights.sum(-1, keepdims=True)
    if not cancel:
        query, key, value, gradient = map(np.abs, (query, key, value, gradient))
    dropped = weights if keep is None else weights * keep
    output = np.einsum("bhqk,bhkd->bhqd", dropped, value)
    by_dropped = np.einsum("bhqd,bhkd->bhqk", gradient, value)
    by_weights = by_dropped if keep is None else by_dropped * keep
    shared = (weights * by_weights).sum(-1, keepdims=True)
    by_scores = weights * (by_weights - shared if cancel else by_weights + shared)
    by_scores[~some] = 0.0  # Their weights are constants.
    return output, (
        np.einsum("bhqk,bhkd->bhqd", by_scores, key) * scale,
        np.einsum("bhqk,bhqd->bhkd", by_scores, query) * scale,
        np.einsum("bhqk,bhqd->bhkd", dropped, gradient),
    )


def inputs(heads, head_dim, tokens, batch=2, scale=1.5):
    shape = (batch, heads, tokens, head_dim)
    return [random_tokens(*shape, seed=i) * scale for i in range(4)]


@pytest.mark.parametrize(
    "heads, head_dim, tokens, masked, group",
    [
        (1, 64, 17, True, 1),
        (2, 1, 33, False, 1),
        (3, 5, 1, False, 3),
        (7, 3, 50, True, 7),
        (16, 16, 64, False, 4),
        (25, 10, 23, True, 5),
        (64, 1, 31, False, 7),
        (128, 2, 19, False, 128),
        (128, 64, 9, True, 50),
    ],
)
def test_matches_float64(monkeypatch, heads, head_dim, tokens, masked, group):
    set_group(monkeypatch, 4 * tokens * tokens * group)
    *arrays, gradient = inputs(heads, head_dim, tokens)
    mask = np.arange(tokens)[None] < np.array([[tokens], [tokens // 2 + 1]]) if masked else None
    tensor = None if mask is None else ops.convert_to_tensor(mask)
    output, gradients = value_and_gradients(
        lambda q, k, v: attention_core(q, k, v, padding_mask=tensor)[0],
        arrays,
        gradient,
    )
    expected, expected_gradients = reference(*arrays, gradient, mask)
    np.testing.assert_allclose(output, expected, atol=2e-5)
    for found, value in zip(gradients, expected_gradients, strict=True):
        np.testing.assert_allclose(found, value, atol=5e-5)


@pytest.mark.parametrize("group_bytes", [None, 2**22, 1])
def test_dropout_is_the_same_forward_and_backward(monkeypatch, group_bytes):
    if group_bytes:
        set_group(monkeypatch, group_bytes)
    tokens, rate = 24, 0.3
    query, key, value, gradient = inputs(4, tokens, tokens)
    identity = np.broadcast_to(np.eye(tokens, dtype="float32"), query.shape)

    def run(value):
        generator = keras.random.SeedGenerator(5)
        return value_and_gradients(
            lambda q, k, v: attention_core(q, k, v, dropout_rate=rate, seed_generator=generator)[0],
            [query, key, value],
            gradient,
        )

    # With the identity as values the output is the matrix of dropped attention weights.
    dropped = run(identity.copy())[0]
    keep = (dropped > 0) / (1 - rate)
    output, gradients = run(value)
    expected, expected_gradients = reference(query, key, value, gradient, keep=keep)
    np.testing.assert_allclose(output, expected, atol=2e-5)
    for found, wanted in zip(gradients, expected_gradients, strict=True):
        np.testing.assert_allclose(found, wanted, atol=5e-5)
    # 4,608 decisions: a standard deviation of 0.0068.
    assert abs((dropped == 0).mean() - rate) < 0.035
    flat = keep.reshape(8, -1)
    assert np.abs(np.corrcoef(flat) - np.eye(8)).max() < 0.2  # Heads and images differ.


@pytest.mark.parametrize("rate", [0.1, 0.5])
def test_dropout_is_like_independent_draws(monkeypatch, rate):
    set_group(monkeypatch, 2**16)
    heads, tokens = 64, 64
    zeros = np.zeros((1, heads, tokens, tokens), "float32")
    values = zeros + np.eye(tokens, dtype="float32")
    generator = keras.random.SeedGenerator(5)
    (dropped, *_), _ = value_and_gradients(
        lambda q, k, v: attention_core(q, k, v, dropout_rate=rate, seed_generator=generator)[0],
        [zeros, zeros, values],
        zeros,
    )
    unit = ((dropped == 0) - rate) / np.sqrt(rate * (1 - rate))
    assert abs(unit.mean()) < 5 / np.sqrt(unit.size)
    off_diagonal = ~np.eye(tokens, dtype=bool)
    for matrices in (unit, unit.transpose(0, 2, 1), unit.transpose(1, 0, 2)):
        # Pairs of rows, of columns and of heads: the variance that independent draws have.
        correlations = (matrices @ matrices.transpose(0, 2, 1) / tokens)[:, off_diagonal]
        assert abs(correlations.mean()) < 0.002
        assert correlations.var() * tokens == pytest.approx(1, abs=0.03)
    # The four corners of a rectangle, which share two random words by two.
    corners = unit[:, ::2, ::2] * unit[:, 1::2, ::2] * unit[:, ::2, 1::2] * unit[:, 1::2, 1::2]
    assert abs(corners.mean()) < 5 / np.sqrt(corners.size)


def test_dropout_differs_from_call_to_call():
    query, key, value, _ = (ops.convert_to_tensor(x) for x in inputs(4, 8, 16))
    generator = keras.random.SeedGenerator(5)
    outputs = [
        to_numpy(attention_core(query, key, value, dropout_rate=0.5, seed_generator=generator)[0])
        for _ in range(2)
    ]
    assert np.abs(outputs[0] - outputs[1]).max() > 0.01


def check_rounding(monkeypatch, path, dtype, arrays, mask=None):
    """Output and gradients differ from float64's by roundings to `dtype` alone.

    Args:
        path: `"default"`, `"scores"` where the attention weights are asked for, or `"fused"`, as
            on an accelerator.
        arrays: queries, keys, values and gradient, rounded to `dtype` before.
        mask: optional boolean array `(batch, keys)`.
    """
    if path == "fused":
        monkeypatch.setattr(attention_module(), "loop_pays", lambda *_: False)
    *arrays, gradient = (to_numpy(ops.cast(x, dtype)) for x in arrays)
    tensor = None if mask is None else ops.convert_to_tensor(mask)

    def attend(*tensors):
        tensors = (ops.cast(x, dtype) for x in tensors)
        output = attention_core(
            *tensors, padding_mask=tensor, return_attention_scores=path == "scores"
        )[0]
        assert keras.backend.standardize_dtype(output.dtype) == dtype
        return output

    output, gradients = value_and_gradients(attend, arrays, ops.cast(gradient, dtype))
    expected, by_inputs = reference(*arrays, gradient, mask)
    magnitude, by_inputs_magnitude = reference(*arrays, gradient, mask, cancel=False)
    # Inside, everything is float32: sums over keys, and scores whose errors are multiplied.
    largest = np.abs(np.einsum("bhqd,bhkd->bhqk", *arrays[:2])).max()
    inside = (arrays[1].shape[2] + 2 * largest) * 2**-23 / float(ml_dtypes.finfo(dtype).eps)
    # Of the output: the weights and itself. Of gradients: those of the weights, the output in
    # their sum over keys, the gradients of the scores and the result.
    assert_rounded(output, expected, dtype, 2 + inside, magnitude)
    for found, wanted, size in zip(gradients, by_inputs, by_inputs_magnitude, strict=True):
        assert_rounded(found, wanted, dtype, 4 + inside, size)


# TensorFlow has no fused kernel, and PyTorch's is the default.
PATHS = ("default", "scores") + (("fused",) if keras.config.backend() == "jax" else ())


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_half_precision(monkeypatch, dtype, path):
    check_rounding(monkeypatch, path, dtype, inputs(4, 5, 40))


# Scores up to 8 and up to 300,000, more than float16 holds.
@pytest.mark.parametrize("scale", [1.0, 200.0])
@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
def test_images_without_valid_tokens_attend_to_all_tokens_equally(monkeypatch, dtype, path, scale):
    query, key, value, gradient = inputs(2, 6, 10, batch=3, scale=1.0)
    mask = np.array([[True] * 7 + [False] * 3, [False] * 10, [False] * 9 + [True]])
    check_rounding(monkeypatch, path, dtype, [scale * query, scale * key, value, gradient], mask)
