"""From attention maps to tokens: identities, and examples worked by hand."""

import numpy as np
import pytest

from lsmha_keras.errors import InputError
from lsmha_keras.heads.relevance import (
    attention_flow,
    attention_rollout,
    gradient_relevance,
    head_maps,
    with_skip,
)

pytestmark = pytest.mark.backend_free


def random_maps(blocks=3, heads=4, tokens=6, seed=0):
    exponents = np.random.default_rng(seed).normal(size=(blocks, heads, tokens, tokens))
    return list(np.exp(exponents) / np.exp(exponents).sum(axis=-1, keepdims=True))


def test_rows_of_the_rollout_sum_to_one():
    np.testing.assert_allclose(attention_rollout(random_maps()).sum(axis=1), 1, rtol=1e-14)


def test_heads_that_look_at_their_own_token_pass_everything_on():
    maps = [np.tile(np.eye(5), (3, 1, 1))] * 4
    np.testing.assert_array_equal(attention_rollout(maps), np.eye(5))
    np.testing.assert_allclose(attention_flow(maps, np.arange(5) / 10), np.arange(5) / 10, 1e-6)


def test_one_uniform_map_is_half_of_the_rollout():
    rolled = attention_rollout([np.full((2, 4, 4), 0.25)])
    np.testing.assert_array_equal(rolled, (np.eye(4) + 0.25) / 2)


def test_the_rollout_multiplies_the_last_block_from_the_left():
    first, last = random_maps(blocks=2)
    steps = [np.eye(6) / 2 + weights.mean(axis=0) / 2 for weights in (first, last)]
    np.testing.assert_allclose(attention_rollout([first, last]), steps[1] @ steps[0], rtol=1e-14)


def test_without_gradients_nothing_is_added():
    maps = random_maps()
    np.testing.assert_array_equal(
        gradient_relevance(maps, [0 * weights for weights in maps]), np.eye(6)
    )


def test_what_lowers_the_logit_is_left_out_of_the_relevance():
    weights = np.array([[[0.2, 0.8], [0.5, 0.5]], [[0.6, 0.4], [1.0, 0.0]]])
    gradients = np.array([[[1.0, -1.0], [2.0, 0.0]], [[-1.0, 1.0], [3.0, 5.0]]])
    expected = np.array([[1 + 0.2 / 2, 0.4 / 2], [(1.0 + 3.0) / 2, 1.0]])
    np.testing.assert_allclose(gradient_relevance([weights], [gradients]), expected, rtol=1e-14)


def test_relevance_of_two_blocks():
    maps = random_maps(blocks=2)
    gradients = [np.ones_like(weights) for weights in maps]
    steps = [np.eye(6) + weights.mean(axis=0) for weights in maps]
    np.testing.assert_allclose(gradient_relevance(maps, gradients), steps[1] @ steps[0], rtol=1e-13)


def test_flow_of_a_network_worked_by_hand():
    # Pipes: pool -> a 0.5, pool -> b 0.5; a -> A 1; b -> A 0.25, b -> B 0.75.
    # Into A: 0.5 + 0.25; into B: 0.5.
    flow = attention_flow([np.array([[[1.0, 0.0], [0.5, 0.5]]])], np.array([0.5, 0.5]))
    np.testing.assert_allclose(flow, [0.6, 0.4], atol=1e-6)


def test_a_bottleneck_between_blocks_limits_the_flow():
    # All of the pooled token is token 1, which the last block makes of itself by three quarters.
    last, first = np.array([[[1.0, 0.0], [0.5, 0.5]]]), np.array([[[0.0, 1.0], [0.0, 1.0]]])
    # first joined with its skip: 0 -> (0.5, 0.5), 1 -> (0, 1). To token 0: only 1 -> 0 -> 0, 0.25.
    # To token 1: 0.75 straight, and 0.25 over token 0.
    flow = attention_flow([first, last], np.array([0.0, 1.0]))
    np.testing.assert_allclose(flow, [0.2, 0.8], atol=1e-6)


def test_many_tokens_have_no_flow():
    with pytest.raises(InputError, match="up to 64 tokens.*Received: 65 tokens"):
        attention_flow([np.eye(65)[None]], np.full(65, 1 / 65))


@pytest.mark.parametrize(
    ("weights", "received"),
    [([[[1.5, -0.5], [0, 1]]], "from -0.5"), ([[[0.5, 0.2], [0, 1]]], "sum to 0.7 .. 1")],
)
def test_weights_that_are_no_shares_are_refused(weights, received):
    with pytest.raises(InputError, match=received):
        with_skip(np.array(weights))


def test_head_maps_weight_queries_as_they_are_pooled():
    weights = random_maps(blocks=1)[0]
    pooling = np.array([0.1, 0.2, 0.3, 0.4, 0.0, 0.0])
    for head, expected in enumerate(weights):
        rows = sum(share * row for share, row in zip(pooling, expected, strict=True))
        np.testing.assert_allclose(head_maps(weights, pooling)[head], rows, rtol=1e-13)
