"""Heads that share a map: exact where the maps are the same, and the medoid's where not."""

import numpy as np
import pytest

import lsmha_keras
from lsmha_keras.models import CCTImageClassifier
from tests.checks import random_images, to_numpy
from tests.surgery.test_prune_heads import IMAGES, shaken

pytest.importorskip("scipy", reason='clusters need pip install "lsmha-keras[explain]"')


def twins(model, block, first, second):
    """Gives one head the queries and keys of another."""
    attention = model.backbone.blocks[block].attention
    query, key, value = attention.read_dense(attention.qkv, 3)
    for part in (query, key):
        part[:, second] = part[:, first]
    attention.write_dense(attention.qkv, [query, key, value])


def scores(model, block):
    name = f"block_{block}/attention_scores"
    return to_numpy(model.intermediates([name])(IMAGES)[name])


def test_heads_with_the_same_map_share_it_exactly(tmp_path):
    model = shaken()
    twins(model, 0, 1, 3)
    twins(model, 1, 0, 2)
    images = random_images(5, 16, 16, 3)
    shared = lsmha_keras.share_heads(model, 3, (images, np.zeros(5, int)), batch_size=2, verbose=0)
    assert shared.backbone.attention == "clustered"
    options = shared.backbone.attention_options
    assert [each["map_of_head"] for each in options] == [[0, 1, 2, 1], [0, 1, 0, 2]]
    np.testing.assert_allclose(to_numpy(shared(IMAGES)), to_numpy(model(IMAGES)), atol=1e-5)
    # Queries and keys of one head of four are gone from each block: two kernels of width 16.
    assert model.count_params() - shared.count_params() == 2 * 2 * 16 * 4
    shared.save_to_preset(tmp_path)
    loaded = CCTImageClassifier.from_preset(tmp_path)
    np.testing.assert_allclose(to_numpy(loaded(IMAGES)), to_numpy(shared(IMAGES)), atol=1e-6)


def test_as_many_maps_as_heads_change_nothing_and_other_blocks_stay():
    model = shaken(
        num_layers=3, blocks=["attention", "glmix", "attention"], num_heads=[4, 2, 4], mlp_conv=True
    )
    shared = lsmha_keras.share_heads(model, {2: 4}, similarity={2: np.eye(4)})
    assert shared.backbone.attention == ["multi_head", "multi_head", "clustered"]
    np.testing.assert_allclose(to_numpy(shared(IMAGES)), to_numpy(model(IMAGES)), atol=1e-5)


def test_the_medoid_lends_its_map():
    model = shaken()
    # Heads 0, 2 and 3 are alike, and 2 is the one in the middle.
    alike = np.array(
        [[1, 0.1, 0.9, 0.6], [0.1, 1, 0.2, 0.1], [0.9, 0.2, 1, 0.9], [0.6, 0.1, 0.9, 1]]
    )
    shared = lsmha_keras.share_heads(model, {0: 2}, similarity={0: alike})
    assert shared.backbone.attention_options[0] == {"map_of_head": [0, 1, 0, 0]}
    np.testing.assert_allclose(scores(shared, 0), scores(model, 0)[:, [2, 1, 2, 2]], atol=1e-5)
    # Values are each head's own: with the medoid's queries and keys for all, it is the same model.
    for head in (0, 3):
        twins(model, 0, 2, head)
    np.testing.assert_allclose(to_numpy(shared(IMAGES)), to_numpy(model(IMAGES)), atol=1e-5)


def test_similarity_is_that_of_each_image():
    model = shaken()
    images = random_images(5, 16, 16, 3)
    found = lsmha_keras.head_similarity(model, (images, np.zeros(5, int)), batch_size=2, verbose=0)
    prepared = to_numpy(model.preprocess_samples(images))
    for block in (0, 1):
        name = f"block_{block}/attention_scores"
        maps = to_numpy(model.intermediates([name])(prepared)[name]).astype("float64")
        flat = maps.reshape(5, 4, -1)
        flat -= flat.mean(axis=-1, keepdims=True)
        flat /= np.linalg.norm(flat, axis=-1, keepdims=True)
        expected = np.einsum("bhx,bgx->bhg", flat, flat).mean(axis=0)
        np.testing.assert_allclose(found[block], expected, atol=1e-5)


@pytest.mark.parametrize(
    ("arguments", "match"),
    [
        ({"num_maps": 5}, "from 1 to the number of heads, which is 4 .* num_maps=5"),
        ({"num_maps": 0}, "num_maps=0"),
        ({"num_maps": {7: 2}}, r"blocks \[0, 1\] have heads. Received: num_maps for block 7"),
        ({"similarity": None}, "Received: data=NoneType, similarity=NoneType"),
        ({"similarity": {0: np.eye(3), 1: np.eye(4)}}, r"block 0 .* Received: shape \(3, 3\)"),
        ({"similarity": {0: np.eye(4)}}, "The similarity of block 1"),
        ({"similarity": {0: np.full((4, 4), np.nan), 1: np.eye(4)}}, "must be a finite array"),
    ],
)
def test_mistakes_are_named(arguments, match):
    given = {"num_maps": 2, "similarity": {0: np.eye(4), 1: np.eye(4)}, **arguments}
    with pytest.raises(ValueError, match=match):
        lsmha_keras.share_heads(shaken(), **given)


def test_other_kinds_are_refused():
    model = shaken(attention="sparse")
    with pytest.raises(ValueError, match="convert_attention.*attention='sparse' in block 0"):
        lsmha_keras.share_heads(model, 2, similarity={0: np.eye(4), 1: np.eye(4)})
