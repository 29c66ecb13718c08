"""Options under which a kind of attention is plain attention, and conversions between kinds."""

import keras
import numpy as np
import pytest

from lsmha_keras.attention.clustered import ClusteredHeads
from lsmha_keras.attention.grouped import GroupedQueryAttention
from lsmha_keras.attention.head_embedding import HeadEmbeddingAttention
from lsmha_keras.attention.hilo import HiLoAttention
from lsmha_keras.attention.interactive import InteractiveHeads
from lsmha_keras.attention.knocking import KnockingHeads
from lsmha_keras.attention.mae import MixtureOfAttentiveExperts
from lsmha_keras.attention.moa import MixtureOfAttentionHeads
from lsmha_keras.attention.moh import MixtureOfHeads
from lsmha_keras.attention.routing import balance_loss, choose
from lsmha_keras.attention.sliced import SlicedAttention
from lsmha_keras.attention.sparse import SparseHeads, kth_largest
from lsmha_keras.attention.talking import TalkingHeads
from lsmha_keras.attention.windows import WindowedHeads
from lsmha_keras.layers.large_scale_multi_head_attention import LargeScaleMultiHeadAttention
from tests.attention.numpy_kinds import GRID, HEADS, TOKENS, WIDTH
from tests.attention.test_kinds import CHANNELS, make, tokens
from tests.checks import random_tokens, to_numpy

# Outputs reach ten: a hundred units in the last place of float32, as sums and folded kernels are
# rounded in another order on each side.
ATOL = 1e-4


@pytest.mark.parametrize(
    ("kind", "options"),
    [
        (GroupedQueryAttention, {"num_kv_heads": HEADS}),
        (KnockingHeads, {}),
        (KnockingHeads, {"gated": True}),
        (TalkingHeads, {}),
        (InteractiveHeads, {}),
        (InteractiveHeads, {"maps_per_head": 4}),
        (MixtureOfHeads, {"num_shared": 3, "top_k": HEADS - 3}),
        (MixtureOfHeads, {"num_shared": 0, "top_k": HEADS}),
        (MixtureOfHeads, {"num_shared": 1, "top_k": HEADS - 1}),
        (MixtureOfHeads, {"num_shared": HEADS, "top_k": 0}),
        (MixtureOfAttentiveExperts, {}),
        (MixtureOfAttentiveExperts, {"leave_out": HEADS - 1}),
        (HiLoAttention, {"window": 1, "low_fraction": 1.0, "grid_shape": GRID}),
        (HiLoAttention, {"window": 4, "low_fraction": 0.0, "grid_shape": GRID}),
        (WindowedHeads, {"windows": [None] * HEADS, "grid_shape": GRID}),
        (WindowedHeads, {"windows": [3] * HEADS, "grid_shape": GRID}),
        (WindowedHeads, {"windows": [4] * HEADS, "shape": "chunk", "grid_shape": GRID}),
        (ClusteredHeads, {"map_of_head": HEADS}),
    ],
)
@pytest.mark.parametrize("bias", [False, True])
def test_it_is_plain_attention(kind, options, bias):
    plain = make("multi_head", use_qkv_bias=bias)
    new = kind.from_multi_head(plain, **options)
    x = tokens()
    for found, expected in zip(
        new(x, return_head_outputs=True), plain(x, return_head_outputs=True), strict=True
    ):
        np.testing.assert_allclose(to_numpy(found), to_numpy(expected), atol=ATOL)
    back = new.to_multi_head()
    assert type(back) is LargeScaleMultiHeadAttention
    for found, expected in zip(back.get_weights(), plain.get_weights(), strict=True):
        np.testing.assert_allclose(found, expected, atol=1e-6)


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("grouped", {"num_kv_heads": 2}),
        ("multi_query", {}),
        ("knocking", {}),
        ("head_embedding", {}),
        ("optimised", {}),
        ("efficient", {}),
        ("subspace", {}),
        ("clustered", {"map_of_head": 2}),
    ],
)
@pytest.mark.parametrize("bias", [False, True])
def test_it_is_written_exactly_as_plain_attention(name, options, bias):
    layer = make(name, options=options, use_qkv_bias=bias)
    plain = layer.to_multi_head()
    x = tokens()
    np.testing.assert_allclose(to_numpy(plain(x)), to_numpy(layer(x)), atol=ATOL)


@pytest.mark.parametrize(
    ("name", "options"),
    [("moh", {}), ("moa", {}), ("mae", {}), ("knocking_gated", {}), ("talking", {}), ("super", {})]
    + [("eit", {}), ("hilo", {}), ("windows", {}), ("sparse", {})],
)
def test_what_is_not_exact_has_to_be_asked_for(name, options):
    layer = make(name, options=options)
    with pytest.raises(ValueError, match="approximate=True"):
        layer.to_multi_head()
    assert np.isfinite(to_numpy(layer.to_multi_head(approximate=True)(tokens()))).all()


def test_added_head_embeddings_are_biases():
    layer = make("head_embedding", options={"combine": "add"}, use_qkv_bias=True)
    x = tokens()
    plain = layer.to_multi_head()
    np.testing.assert_allclose(to_numpy(plain(x)), to_numpy(layer(x)), atol=ATOL)
    without = make("head_embedding", options={"combine": "add"})
    with pytest.raises(ValueError, match="use_qkv_bias=False"):
        without.to_multi_head()


def test_super_attention_with_an_identity_is_efficient():
    efficient = make("efficient")
    new = SlicedAttention(HEADS, slice_keys=True, mix_tokens=True, grid_shape=GRID)
    x = tokens()
    new(x)
    for part in ("qkv", "projection"):
        getattr(new, part).set_weights(getattr(efficient, part).get_weights())
    np.testing.assert_allclose(to_numpy(new(x)), to_numpy(efficient(x)), atol=ATOL)


@pytest.mark.parametrize(
    ("heads", "shared"), [(1, 1), (2, 1), (4, 1), (6, 1), (8, 2), (10, 2), (16, 4), (64, 16)]
)
def test_groups_have_four_heads_if_that_divides_them(heads, shared):
    assert GroupedQueryAttention(heads).num_kv_heads == shared


def test_grouped_is_the_layer_of_keras():
    layer = make("grouped", options={"num_kv_heads": 2})
    peer = keras.layers.GroupQueryAttention(WIDTH, HEADS, 2, use_bias=False)
    x = tokens()
    peer(x, x)
    key, value = np.split(layer.key_value.get_weights()[0], 2, axis=1)
    peer.set_weights(
        [
            layer.query.get_weights()[0].reshape(CHANNELS, HEADS, WIDTH),
            key.reshape(CHANNELS, 2, WIDTH),
            value.reshape(CHANNELS, 2, WIDTH),
            layer.projection.get_weights()[0].reshape(HEADS, WIDTH, CHANNELS),
        ]
    )
    expected = to_numpy(peer(x, x)) + layer.projection.get_weights()[1]
    np.testing.assert_allclose(to_numpy(layer(x)), expected, atol=ATOL)


def test_experts_of_equal_probability_are_multi_query_attention():
    multi_query = make("multi_query")
    options = {"top_k": HEADS}
    new = MixtureOfAttentionHeads(HEADS, **options)
    x = tokens()
    new(x)
    for part in ("query", "key_value", "projection"):
        getattr(new, part).set_weights(getattr(multi_query, part).get_weights())
    new.router.assign(np.zeros(new.router.shape))
    np.testing.assert_allclose(to_numpy(new(x)), to_numpy(multi_query(x)), atol=ATOL)
    published = MixtureOfAttentionHeads(HEADS, renormalise=False, **options)
    published(x)
    published.set_weights(new.get_weights())
    published.projection.bias.assign(np.zeros(CHANNELS))
    new.projection.bias.assign(np.zeros(CHANNELS))
    np.testing.assert_allclose(to_numpy(published(x)) * HEADS, to_numpy(new(x)), atol=ATOL)


def test_heads_that_multiply_by_one_are_copies_of_one_head():
    layer = HeadEmbeddingAttention(HEADS, head_dim=WIDTH)
    x = tokens()
    layer(x)
    for embedding in layer.embeddings.values():
        embedding.assign(np.zeros(embedding.shape))
    heads = to_numpy(layer(x, return_head_outputs=True)[1])
    np.testing.assert_allclose(heads, heads[:, :, :1].repeat(HEADS, axis=2), atol=1e-6)
    single = LargeScaleMultiHeadAttention(1, head_dim=WIDTH)
    single(x)
    single.qkv.set_weights(layer.qkv.get_weights())
    expected = to_numpy(single(x, return_head_outputs=True)[1])
    np.testing.assert_allclose(heads[:, :, :1], expected, atol=1e-6)


def test_chosen_heads_and_gates_add_up():
    layer = make("moh", options={"num_shared": 2, "top_k": 3})
    gates = to_numpy(layer.gates(tokens()))
    balance = to_numpy(keras.ops.softmax(tokens() @ to_numpy(layer.balance_router)))
    np.testing.assert_array_equal((gates[..., 2:] > 0).sum(-1), 3)
    np.testing.assert_allclose(gates[..., :2].sum(-1), 2 * 2 * balance[..., 0], rtol=1e-5)
    np.testing.assert_allclose(gates[..., 2:].sum(-1), 3 * 2 * balance[..., 1], rtol=1e-5)
    experts = make("moa", options={"top_k": 3})
    gates = to_numpy(experts.gates(tokens()))
    np.testing.assert_array_equal((gates > 0).sum(-1), 3)
    np.testing.assert_allclose(gates.sum(-1), 3, rtol=1e-5)


def test_weights_of_heads_sum_to_their_number():
    layer = make("mae", options={"leave_out": 3})
    np.testing.assert_allclose(to_numpy(layer.head_weights(tokens())).sum(-1), HEADS, rtol=1e-5)


def test_balance_loss():
    uniform = np.full((2, 4, 8), 1 / 8, "float32")
    chosen = np.zeros_like(uniform)
    for token in range(8):  # Every head is chosen three times by eight tokens.
        chosen.reshape(8, 8)[token, [(token + i) % 8 for i in range(3)]] = 1
    tensors = [keras.ops.convert_to_tensor(x) for x in (uniform, chosen)]
    assert float(balance_loss(*tensors)) == pytest.approx(3)
    # Padding does not count, whatever stands there.
    mask = np.array([[True] * 4, [False] * 4])
    other = np.where(mask[..., None], uniform, random_tokens(2, 4, 8))
    alone = balance_loss(*(x[:1] for x in tensors))
    found = balance_loss(keras.ops.convert_to_tensor(other), tensors[1], mask)
    assert float(found) == pytest.approx(float(alone))
    probabilities = np.array([[[0.1, 0.4, 0.3, 0.2]]], "float32")
    np.testing.assert_array_equal(
        to_numpy(choose(keras.ops.convert_to_tensor(probabilities), 2))[0, 0], [0, 1, 1, 0]
    )


@pytest.mark.parametrize("name", ["moh", "moa"])
def test_routing_adds_its_loss_in_training_only(name):
    layer = make(name, options={"balance_loss": 0.5})
    layer(tokens(), training=False)
    assert not layer.losses
    layer(tokens(), training=True)
    assert sum(float(to_numpy(loss)) for loss in layer.losses) > 0.5 * 2


def test_windows_of_nothing_but_the_token_give_its_value():
    layer = make("windows", options={"windows": [0] * HEADS})
    x = tokens()
    heads = to_numpy(layer(x, return_head_outputs=True)[1])
    value = x @ layer.qkv.get_weights()[0][:, 2 * CHANNELS :]
    np.testing.assert_allclose(heads.reshape(x.shape), value, atol=ATOL)


def test_chunks_are_images_of_their_own():
    layer = make("windows", options={"windows": [2] * HEADS, "shape": "chunk"})
    plain = layer.to_multi_head(approximate=True)
    x = tokens()
    chunk = [0, 1, 4, 5]  # the first two rows and columns
    found = to_numpy(layer(x))[:, chunk]
    np.testing.assert_allclose(found, to_numpy(plain(x[:, chunk])), atol=ATOL)


@pytest.mark.parametrize(
    ("normaliser", "k"), [("top_k", 3), ("top_k", TOKENS), ("entmax15", 8), ("sparsemax", 8)]
)
def test_sparse_weights_are_zero_for_some_tokens(normaliser, k):
    layer = make("sparse", options={"normaliser": normaliser, "k": k})
    output, weights = layer(tokens(), return_attention_scores=True)
    weights = to_numpy(weights)
    np.testing.assert_allclose(weights.sum(-1), 1, atol=1e-5)
    kept = (weights > 0).sum(-1)
    if normaliser == "top_k":
        np.testing.assert_array_equal(kept, k)
    else:
        assert kept.min() >= 1 and kept.mean() < TOKENS
    if k == TOKENS:
        plain = layer.to_multi_head(approximate=True)
        np.testing.assert_allclose(to_numpy(output), to_numpy(plain(tokens())), atol=ATOL)


@pytest.mark.parametrize("k", [1, 4, 7])
def test_the_largest_scores_are_counted_with_equal_ones_and_masked_ones(k):
    scores = random_tokens(5, 7)
    scores[1] = [2, 2, -1, 2, 0, -0.0, -1]
    scores[2, 2:] = -np.inf
    scores[3], scores[4] = -np.abs(scores[3]), 0
    expected = np.sort(scores, axis=-1)[:, -k:][:, :1]
    found = to_numpy(kth_largest(keras.ops.convert_to_tensor(scores), k))
    np.testing.assert_array_equal(found, expected)


def test_sparsemax_is_the_nearest_distribution():
    layer = SparseHeads(1, normaliser="sparsemax", head_dim=WIDTH)
    x = tokens(1)
    layer(x)
    layer.qkv.kernel.assign(random_tokens(CHANNELS, 3 * WIDTH))
    weights = to_numpy(layer(x, return_attention_scores=True)[1])[0, 0]
    query, key, _ = np.split(x[0] @ layer.qkv.get_weights()[0], 3, axis=1)
    scores = query @ key.T / np.sqrt(WIDTH)
    # The projection onto the simplex: scores less one number, where that is positive.
    shift = np.where(weights > 0, scores - weights, np.nan)
    threshold = np.nanmean(shift, axis=-1, keepdims=True)
    np.testing.assert_allclose(weights, np.maximum(scores - threshold, 0), atol=1e-5)


@pytest.mark.parametrize(
    ("kind", "options", "message"),
    [
        (GroupedQueryAttention, {"num_kv_heads": 3}, "num_kv_heads=3"),
        (GroupedQueryAttention, {"num_kv_heads": 16}, "num_kv_heads=16"),
        (MixtureOfHeads, {"num_shared": 9}, "num_shared=9"),
        (MixtureOfHeads, {"num_shared": 4, "top_k": 5}, "from 1 to 4.*top_k=5"),
        (MixtureOfHeads, {"top_k": 0}, "top_k=0"),
        (MixtureOfAttentionHeads, {"top_k": 9}, "from 1 to 8.*top_k=9"),
        (MixtureOfAttentiveExperts, {"leave_out": 8}, "leave_out=8"),
        (HeadEmbeddingAttention, {"combine": "mul"}, "combine='mul'"),
        (HiLoAttention, {"window": 3, "grid_shape": GRID}, "window=3"),
        (HiLoAttention, {"low_fraction": 1.5, "grid_shape": GRID}, "low_fraction=1.5"),
        (HiLoAttention, {}, "grid_shape=None"),
        (WindowedHeads, {"windows": [1], "grid_shape": GRID}, r"windows=\[1\]"),
        (WindowedHeads, {"windows": [-1] * 8, "grid_shape": GRID}, "from 0 to 4"),
        (WindowedHeads, {"windows": [5] * 8, "grid_shape": GRID}, "from 0 to 4"),
        (WindowedHeads, {"shape": "round", "grid_shape": GRID}, "shape='round'"),
        (ClusteredHeads, {"map_of_head": 3}, "map_of_head=3"),
        (ClusteredHeads, {"map_of_head": [0, 2] * 4}, "without gaps"),
        (InteractiveHeads, {"maps_per_head": 1}, "2 or more.*maps_per_head=1"),
        (InteractiveHeads, {"maps_per_head": 2.5}, "maps_per_head=2.5"),
        (SparseHeads, {"normaliser": "softmax"}, "normaliser='softmax'"),
        (SparseHeads, {"k": 0}, "k=0"),
        (SlicedAttention, {"mix_tokens": True}, "grid_shape=None"),
    ],
)
def test_bad_options(kind, options, message):
    with pytest.raises(ValueError, match=message):
        kind(HEADS, **options)


def test_tokens_that_do_not_fit():
    x = tokens()[:, :15]
    for kind in (HiLoAttention, SlicedAttention):
        arguments = {"slice_keys": True, "mix_tokens": True} if kind is SlicedAttention else {}
        with pytest.raises(ValueError, match="are 16"):
            kind(HEADS, grid_shape=GRID, **arguments)(x)
    with pytest.raises(ValueError, match="head_dim=5"):
        SlicedAttention(HEADS, head_dim=5)(x)
