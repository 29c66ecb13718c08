"""The images that excite heads most: the same as one head after the other, all others masked."""

import dataclasses

import numpy as np
import pytest

from lsmha_keras.data.datasets import ArrayDataset
from lsmha_keras.shp.exemplars import Exemplars, find_exemplars, head_looks
from lsmha_keras.shp.head_outputs import HeadOutputs
from lsmha_keras.shp.performance import single_head_performance
from lsmha_keras.shp.readouts import BlockReadouts
from tests.heads.models import classifier

LABELS, IMAGES, PER_HEAD = 4, 30, 3


@pytest.fixture(scope="module")
def model():
    return classifier()


@pytest.fixture(scope="module", params=["recomputed", "frozen"])
def measured(request, model):
    """Readouts, data, results and what was found in them."""
    return _measure(model, request.param)


def _measure(model, pooling):
    rng = np.random.default_rng(0)
    shapes = HeadOutputs(model).shapes(model.image_shape)
    inner = {i: heads * width for i, (_, _, heads, width) in shapes.items()}
    weights = {
        i: (rng.normal(size=(n, 1)), np.zeros(1), rng.normal(size=(n, LABELS)))
        for i, n in inner.items()
    }
    readouts = BlockReadouts(weights)
    images = rng.integers(0, 256, (IMAGES, *model.image_shape), dtype="uint8")
    data = ArrayDataset(images, rng.integers(0, LABELS, IMAGES), list("abcd"))
    results = single_head_performance(model, readouts, data, pooling, verbose=0)
    found = find_exemplars(model, readouts, data, results, PER_HEAD, batch_size=8, verbose=0)
    return readouts, data, results, found


def _by_hand(model, readouts, data, results):
    """Yields block, head, responses `(images, labels)` and where the head looks, one by one."""
    images = model.preprocess_samples(data.load(np.arange(IMAGES)))
    for block in readouts.blocks:
        names = [f"block_{block}/head_outputs", f"block_{block}/attention_scores"]
        values = model.intermediates(names)(images)
        heads, scores = (np.asarray(_numpy(values[name]), "float64") for name in names)
        pool, _, kernel = readouts.weights[block]
        width = heads.shape[-1]
        all_heads = heads.reshape(*heads.shape[:2], -1)
        for head in range(heads.shape[2]):
            columns = slice(head * width, (head + 1) * width)
            own = np.zeros_like(all_heads)
            own[..., columns] = all_heads[..., columns]
            pooled_by = all_heads if results[block].pooling == "frozen" else own
            weights = np.exp(pooled_by @ pool[:, 0])
            weights /= weights.sum(axis=1, keepdims=True)
            fields = np.einsum("bt,bti->bi", weights, own) @ kernel
            looks = np.stack([w @ s for w, s in zip(weights, scores[:, head], strict=True)])
            yield block, head, fields / results[block].class_means[head].max(), looks


def test_they_are_the_images_of_the_largest_responses(model, measured):
    readouts, data, results, found = measured
    assert found.images.dtype == "uint8" and len(np.unique(found.image)) == len(found.images)
    for block, head, responses, looks in _by_hand(model, readouts, data, results):
        own = (found.block == block) & (found.head == head)
        if results[block].dead[head]:
            assert not own.any()
            continue
        strongest = np.sort(responses.max(axis=1))[::-1]
        shown = found.response[own]
        np.testing.assert_allclose(shown[0], strongest[0], rtol=1e-4)
        assert (np.diff(shown) <= 0).all()
        assert (shown >= strongest[PER_HEAD - 1] - 1e-4).sum() >= PER_HEAD
        for label in (label for cluster in results[block].clusters[head] for label in cluster):
            best = shown[found.unit[own] == label].max()
            np.testing.assert_allclose(best, responses[:, label].max(), rtol=1e-4)
        for row in np.flatnonzero(own):
            image = found.images[found.image[row]]
            (index,) = (i for i in range(IMAGES) if (data.load([i])[0] == image).all())
            assert data.labels[index] == found.labels[found.image[row]]
            expected = responses[index, found.unit[row]]
            np.testing.assert_allclose(found.response[row], expected, rtol=1e-4)
            np.testing.assert_allclose(found.maps[row], looks[index], atol=1e-5)


def test_each_map_is_shares_of_the_tokens(measured):
    found = measured[-1]
    assert found.maps.shape == (len(found.head), np.prod(found.grid_shape))
    np.testing.assert_allclose(found.maps.sum(axis=-1), 1, rtol=1e-5)


def test_a_kind_without_scores_has_images_but_no_maps():
    *_, found = _measure(classifier(attention="normlin"), "recomputed")
    assert found.maps is None and len(found.response) == len(found.image) > 0
    assert Exemplars(**found.arrays()).maps is None


def test_they_are_made_again_from_their_arrays(measured):
    found = measured[-1]
    again = Exemplars(**found.arrays())
    np.testing.assert_array_equal(again.image, found.image)
    np.testing.assert_array_equal(again.maps, found.maps)


def test_a_higher_threshold_keeps_fewer_labels(measured):
    _, _, results, found = measured
    higher = {block: result.at(0.9) for block, result in results.items()}
    fewer = found.covered_by(higher)
    kept = [
        strongest or any(unit in cluster for cluster in higher[block].clusters[head])
        for block, head, unit, strongest in zip(
            found.block, found.head, found.unit, found.strongest, strict=True
        )
    ]
    assert 0 < sum(kept) < len(kept)
    for name in ("block", "head", "unit", "response", "maps"):
        np.testing.assert_array_equal(getattr(fewer, name), getattr(found, name)[kept])
    np.testing.assert_array_equal(
        fewer.images[fewer.image], found.images[found.image[np.array(kept)]]
    )
    assert len(fewer.images) == len(np.unique(fewer.image))
    every = found.covered_by(results)
    assert len(every.head) == len(found.head)
    counts = np.bincount(fewer.head[fewer.strongest & (fewer.block == fewer.block[0])])
    assert set(counts) <= {0, PER_HEAD}


def test_results_of_each_block_are_needed(model, measured):
    readouts, data, results, _ = measured
    last = readouts.blocks[-1]
    fewer = {block: result for block, result in results.items() if block != last}
    with pytest.raises(ValueError, match=rf"no results.*readouts of \[{last}\]"):
        find_exemplars(model, readouts, data, fewer, verbose=0)


def test_dead_heads_have_no_images(model, measured):
    readouts, data, results, _ = measured
    dead = {
        block: dataclasses.replace(result, class_means=-np.abs(result.class_means))
        for block, result in results.items()
    }
    with pytest.raises(ValueError, match="Nothing excites heads that are dead"):
        find_exemplars(model, readouts, data, dead, verbose=0)


def test_a_head_looks_where_the_tokens_look_that_it_pools():
    heads = np.array([[[[9.0], [0.0]], [[0.0], [9.0]]]])  # head 0 pools token 0, head 1 token 1
    scores = np.array([[[[0.2, 0.8], [1.0, 0.0]], [[1.0, 0.0], [0.3, 0.7]]]])
    own = head_looks(heads, scores, np.ones((2, 1)), "recomputed")
    np.testing.assert_allclose(own, [[[0.2, 0.8], [0.3, 0.7]]], atol=1e-3)
    together = head_looks(heads, scores, np.ones((2, 1)), "frozen")  # both tokens alike
    np.testing.assert_allclose(together, [[[0.6, 0.4], [0.65, 0.35]]], atol=1e-6)


def _numpy(tensor):
    import keras

    return keras.ops.convert_to_numpy(tensor)
