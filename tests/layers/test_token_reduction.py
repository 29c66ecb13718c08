"""Fewer tokens: against loops over tokens, and what has to stay as it is."""

import keras
import numpy as np
import pytest
from keras import ops

from lsmha_keras.benchmark.multiply_adds import count_multiply_adds
from lsmha_keras.layers.token_reduction import (
    TokenReduction,
    attention_received,
    count_kept,
    put_back,
)
from lsmha_keras.layers.transformer_block import TransformerBlock
from tests.checks import check_compiled, check_config, random_tokens, to_numpy

TOKENS, CHANNELS = 10, 6
WAYS = ("fuse", "merge", "skip")


def random_scores(tokens=TOKENS):
    scores = np.exp(random_tokens(2, 3, tokens, tokens, seed=1))
    return scores / scores.sum(-1, keepdims=True)


def by_loops(x, scores, kept, way, valid):
    """What one sample becomes, token by token, and the places of those that stay."""
    tokens = range(len(x))
    queries = [q for q in tokens if valid[q]]
    received = [
        np.mean([[head[q][t] for q in queries] for head in scores]) if valid[t] else 0
        for t in tokens
    ]
    stay = sorted(sorted(tokens, key=lambda t: -received[t])[:kept])
    others = [t for t in tokens if t not in stay]
    groups = {t: [x[t]] for t in stay}
    for t in others:
        if way == "merge" and valid[t]:
            cosines = {
                s: x[t] @ x[s] / np.linalg.norm(x[t]) / np.linalg.norm(x[s])
                for s in stay
                if valid[s]
            }
            groups[max(cosines, key=cosines.get)].append(x[t])
    found = [np.mean(group, axis=0) for group in groups.values()]
    if way == "fuse":
        found.append(sum(received[t] * x[t] for t in others))
    return np.stack(found), stay, others


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("padded", [False, True])
def test_each_way_is_that_of_loops(way, padded):
    layer, x, scores = TokenReduction(0.5, way), random_tokens(2, TOKENS, CHANNELS), random_scores()
    valid = np.arange(TOKENS)[None] < np.array([[TOKENS], [7 if padded else TOKENS]])
    scores = np.where(valid[:, None, None], scores, 0)  # nobody looks at padding
    found, reduction = layer(x, scores, padding_mask=valid if padded else None)
    for sample in range(2):
        expected, stay, others = by_loops(x[sample], scores[sample], 5, way, valid[sample])
        np.testing.assert_allclose(to_numpy(found)[sample], expected, atol=1e-6)
        assert to_numpy(reduction["order"])[sample].tolist() == stay + others
    assert layer.count_left(TOKENS) == found.shape[1]
    if padded:
        mask = ops.convert_to_numpy(reduction["padding_mask"])
        assert mask[0].all() and mask[1, :5].all()  # seven are valid, five stay
        assert mask.shape == found.shape[:2]


def test_tokens_that_stay_are_not_touched():
    x, scores = random_tokens(2, TOKENS, CHANNELS), random_scores()
    for way in ("fuse", "skip"):
        found, reduction = TokenReduction(0.7, way)(x, scores)
        places = ops.convert_to_numpy(reduction["order"])[:, :7]
        np.testing.assert_array_equal(to_numpy(found)[:, :7], x[np.arange(2)[:, None], places])


def test_skipped_tokens_come_back_to_their_places():
    x = random_tokens(2, TOKENS, CHANNELS)
    kept, reduction = TokenReduction(0.3, "skip")(x, random_scores())
    back = put_back(kept, reduction["skipped"], reduction["order"])
    np.testing.assert_array_equal(to_numpy(back), x)


def test_the_order_of_tokens_does_not_decide():
    x, scores = random_tokens(2, TOKENS, CHANNELS), random_scores()
    moved = np.random.default_rng(0).permutation(TOKENS)
    for way in ("fuse", "merge"):
        layer = TokenReduction(0.4, way)
        found = to_numpy(layer(x, scores)[0])
        other = to_numpy(layer(x[:, moved], scores[:, :, moved][..., moved])[0])
        for sample in range(2):
            rows = [sorted(map(tuple, y[sample].round(5).tolist())) for y in (found, other)]
            np.testing.assert_allclose(*rows, atol=1e-4)


def test_attention_received_is_shared_out():
    np.testing.assert_allclose(to_numpy(attention_received(random_scores())).sum(-1), 1, rtol=1e-5)
    assert [count_kept(0.7, 10), count_kept(0.71, 10), count_kept(1e-3, 10)] == [7, 8, 1]


@pytest.mark.parametrize("way", WAYS)
def test_all_tokens_stay_while_training_says_so(way):
    layer, x = TokenReduction(0.5, way), random_tokens(2, TOKENS, CHANNELS)
    layer.keep_in_training = 1.0
    found, reduction = layer(x, random_scores(), training=True)
    np.testing.assert_array_equal(to_numpy(found), x)
    if way == "skip":
        back = put_back(found, reduction["skipped"], reduction["order"])
        np.testing.assert_array_equal(to_numpy(back), x)
    assert layer(x, random_scores())[0].shape[1] < TOKENS


def make_block(**arguments):
    block = TransformerBlock(3, mlp_dim=8, **arguments)
    block.build((None, TOKENS, CHANNELS))
    for i, weight in enumerate(block.trainable_weights):
        weight.assign(0.3 * random_tokens(*weight.shape, seed=i) + (weight.name == "gamma"))
    return block


@pytest.mark.parametrize("way", WAYS)
def test_a_block_that_reduces(way):
    block = make_block(token_keep=0.5, token_reduction=way)
    plain, x = make_block(), random_tokens(2, TOKENS, CHANNELS)
    output, heads, scores, reduction = block(
        x, return_head_outputs=True, return_attention_scores=True, return_reduction=True
    )
    assert output.shape[1] == block.compute_output_shape(x.shape)[1] == 5 + (way == "fuse")
    # Attention is that of all tokens, and what stays goes on as it would have.
    whole, all_heads, all_scores = plain(x, return_head_outputs=True, return_attention_scores=True)
    np.testing.assert_allclose(to_numpy(heads), to_numpy(all_heads), atol=1e-6)
    np.testing.assert_allclose(to_numpy(scores), to_numpy(all_scores), atol=1e-6)
    places = ops.convert_to_numpy(reduction["order"])[:, :5]
    if way != "merge":
        expected = to_numpy(whole)[np.arange(2)[:, None], places]
        np.testing.assert_allclose(to_numpy(output)[:, :5], expected, atol=1e-5)
    check_config(block)
    check_compiled(block, x, to_numpy(output))


def test_masked_heads_have_no_say():
    block, x = make_block(token_keep=0.5), random_tokens(2, TOKENS, CHANNELS)
    for name in ("head_mask", "head_scale"):
        factor = {name: np.array([1, 0, 1], "float32")}
        _, scores, reduction = block(
            x, **factor, return_attention_scores=True, return_reduction=True
        )
        received = to_numpy(scores)[:, [0, 2]].mean((1, 2))
        stay = ops.convert_to_numpy(reduction["order"])[:, :5]
        expected = np.sort(np.argsort(-received, axis=1)[:, :5], axis=1)
        np.testing.assert_array_equal(stay, expected)


def test_padding_is_followed_through_a_block():
    mask = np.arange(TOKENS)[None] < np.array([[TOKENS], [4]])
    x = random_tokens(2, TOKENS, CHANNELS)
    other = np.where(mask[..., None], x, 50)
    for way in WAYS:
        block = make_block(token_keep=0.6, token_reduction=way)
        found = [block(t, padding_mask=mask, return_reduction=True) for t in (x, other)]
        left = ops.convert_to_numpy(found[0][1]["padding_mask"])
        # Four of ten are valid and six stay; all that is fused then is padding.
        assert left[1].tolist() == [True] * 4 + [False] * (left.shape[1] - 4)
        outputs = [to_numpy(pair[0])[left] for pair in found]
        np.testing.assert_allclose(*outputs, atol=1e-4)
    block = make_block(token_keep=0.6)
    with pytest.raises(ValueError, match="mask of Keras.*token_keep=0.6"):
        block(x, mask=mask)


def test_cost():
    counts = {}
    for way in (None, *WAYS):
        arguments = {"token_keep": 0.5, "token_reduction": way} if way else {}
        block = make_block(**arguments)
        model = keras.Sequential([keras.Input((TOKENS, CHANNELS)), block])
        counts[way] = count_multiply_adds(model)
    attention = 10 * 4 * 36 + 2 * 100 * 6
    assert counts[None] == attention + 10 * 2 * 6 * 8
    assert counts["skip"] == attention + 5 * 2 * 6 * 8
    assert counts["fuse"] == attention + 6 * 2 * 6 * 8 + 5 * 6
    assert counts["merge"] == counts["skip"] + 2 * 5 * 5 * 6


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"token_keep": 0}, "token_keep=0"),
        ({"token_keep": 1.1}, "token_keep=1.1"),
        ({"token_keep": "half"}, "token_keep='half'"),
        ({"token_keep": 0.5, "token_reduction": "fused"}, "fuse.*token_reduction='fused'"),
        ({"token_keep": 0.5, "mlp_conv": True, "grid_shape": (2, 5)}, "all tokens of the grid"),
        ({"token_keep": 0.5, "attention": "normlin", "grid_shape": (2, 5)}, "no scores"),
    ],
)
def test_bad_options(arguments, message):
    with pytest.raises(ValueError, match=message):
        TransformerBlock(2, 4, **arguments)


def test_an_unknown_number_of_tokens():
    with pytest.raises(ValueError, match="None, channels"):
        TransformerBlock(2, 4, token_keep=0.5)(keras.Input((None, 6)))
