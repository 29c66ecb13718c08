import keras
import numpy as np
import pytest

import lsmha_keras as lsmha
from lsmha_keras.shp.head_scores import (
    SCORES,
    attention_distance,
    attention_entropy,
    head_scores,
    rank_correlations,
    token_distances,
)
from tests.checks import random_images, to_numpy

CLASSES, IMAGES = 5, 22
LABELS = np.arange(IMAGES) % CLASSES
# On a 4x4 grid of tokens, 4 pixels apart: one convolutional block, then 3 and 4 heads.
HEADS = {1: 3, 2: 4}


@pytest.fixture(scope="module")
def model():
    model = lsmha.CCTImageClassifier.from_preset(
        "cct_2_3x2",
        num_classes=CLASSES,
        image_shape=(16, 16, 3),
        num_layers=3,
        num_conv_blocks=1,
        conv_block_design="full",
        num_heads=[3, 4],
        head_dim=4,
        hidden_dim=16,
        mlp_dim=16,
        tokenizer_filters=8,
    )
    # As they are initialised, weights are so small that no head matters.
    rng = np.random.default_rng(0)
    for weight in model.trainable_weights:
        if "kernel" in weight.path:
            fan_in = np.prod(weight.shape[:-1])
            weight.assign(rng.normal(size=weight.shape) * 1.5 / np.sqrt(fan_in))
    return model


@pytest.fixture(scope="module")
def images():
    return random_images(IMAGES, 16, 16, 3)


@pytest.fixture(scope="module")
def scores(model, images):
    before = model.get_weights()
    # The last batch is not full.
    measured = head_scores(model, (images, LABELS), batch_size=8, verbose=0)
    for old, new in zip(before, model.get_weights(), strict=True):
        np.testing.assert_array_equal(old, new)  # measuring changes nothing
    return measured


def logits(model, images, block, mask):
    masked = model.intermediates(["logits"], head_masks={block: np.asarray(mask, "float32")})
    return to_numpy(masked(model.preprocessor(images))["logits"]).astype("float64")


def cross_entropies(values):
    values = values - values.max(axis=1, keepdims=True)
    log_softmax = values - np.log(np.exp(values).sum(axis=1, keepdims=True))
    return -log_softmax[np.arange(IMAGES), LABELS]


def each_head():
    return [(block, head) for block, heads in HEADS.items() for head in range(heads)]


def test_all_scores_of_all_heads(scores):
    assert {b: {n: v.shape for n, v in s.items()} for b, s in scores.items()} == {
        block: dict.fromkeys(SCORES, (heads,)) for block, heads in HEADS.items()
    }


@pytest.mark.parametrize(("block", "head"), each_head())
def test_accuracy_drop_by_brute_force(model, images, scores, block, head):
    whole = np.ones(HEADS[block])
    without = np.where(np.arange(HEADS[block]) == head, 0, 1)
    right, left = (
        (logits(model, images, block, mask).argmax(axis=1) == LABELS).mean()
        for mask in (whole, without)
    )
    assert scores[block]["accuracy_drop"][head] == pytest.approx(right - left)


def test_some_heads_matter(scores):
    """Otherwise all-zero scores would pass the test above."""
    assert max(np.abs(scores[block]["accuracy_drop"]).max() for block in HEADS) > 0


@pytest.mark.parametrize(("block", "head"), each_head())
def test_mask_gradient_by_finite_differences(model, images, scores, block, head):
    step = 0.02  # masks end at 1, hence a second-order difference to one side
    losses = []
    for steps in range(3):
        mask = np.ones(HEADS[block])
        mask[head] -= steps * step
        losses.append(cross_entropies(logits(model, images, block, mask)))
    slopes = (3 * losses[0] - 4 * losses[1] + losses[2]) / (2 * step)
    expected = np.abs(slopes).mean()
    assert expected > 1e-3
    assert scores[block]["mask_gradient"][head] == pytest.approx(expected, rel=0.01)


def test_attention_scores_by_hand(model, images, scores):
    places = [(4 * row, 4 * column) for row in range(4) for column in range(4)]
    names = [f"block_{block}/attention_scores" for block in HEADS]
    attention = model.intermediates(names)(model.preprocessor(images))
    for block in HEADS:
        weights = to_numpy(attention[f"block_{block}/attention_scores"]).astype("float64")
        entropy, distance = np.zeros((2, HEADS[block]))
        for query, place in enumerate(places):
            for key, other in enumerate(places):
                weight = weights[:, :, query, key]
                entropy -= (weight * np.log(weight)).mean(axis=0) / 16
                distance += weight.mean(axis=0) * np.hypot(*np.subtract(place, other)) / 16
        np.testing.assert_allclose(scores[block]["attention_entropy"], entropy, rtol=1e-4)
        np.testing.assert_allclose(scores[block]["attention_distance"], distance, rtol=1e-4)


def rows(*rows):
    """Attention of one head on one image."""
    return np.array(rows, "float32")[None, None]


UNIFORM = np.full((1, 1, 4, 4), 0.25, "float32")
SELF = np.eye(4, dtype="float32")[None, None]
ONE_HALF_EACH = rows([0.5, 0.5, 0, 0], [0.5, 0.5, 0, 0], [0, 0, 0.5, 0.5], [0, 0, 0.5, 0.5])
FIRST_TOKEN = rows(*[[1, 0, 0, 0]] * 4)
MIXED = rows([1, 0, 0, 0], *[[0.25] * 4] * 3)


@pytest.mark.parametrize(
    ("attention", "entropy", "distance"),
    [
        (UNIFORM, np.log(4), (0 + 1 + 1 + np.sqrt(2)) / 4),
        (SELF, 0, 0),
        (ONE_HALF_EACH, np.log(2), 0.5),
        (FIRST_TOKEN, 0, (0 + 1 + 1 + np.sqrt(2)) / 4),
        (MIXED, np.log(4) * 3 / 4, (2 + np.sqrt(2)) / 4 * 3 / 4),
    ],
)
def test_attention_on_a_2x2_grid(attention, entropy, distance):
    assert to_numpy(attention_entropy(attention)).item() == pytest.approx(entropy, abs=1e-6)
    distances = token_distances((2, 2), (2, 2))
    assert to_numpy(attention_distance(attention, distances)).item() == pytest.approx(distance)


def test_distances_are_in_pixels_row_by_row():
    distances = token_distances(grid_shape=(2, 3), image_size=(8, 9))
    np.testing.assert_allclose(distances[0], [0, 3, 6, 4, 5, np.sqrt(52)], rtol=1e-6)
    np.testing.assert_array_equal(distances, distances.T)


@pytest.mark.parametrize("kind", ["one-hot", "PyDataset"])
def test_kinds_of_data_agree(model, images, scores, kind):
    class Batches(keras.utils.PyDataset):
        def __len__(self):
            return 2

        def __getitem__(self, index):
            part = slice(0, 9) if index == 0 else slice(9, IMAGES)
            return images[part], LABELS[part]

    dataset = Batches() if kind == "PyDataset" else (images, np.eye(CLASSES)[LABELS])
    measured = head_scores(model, dataset, blocks=[2], verbose=0)
    assert list(measured) == [2]
    for name in SCORES:
        np.testing.assert_allclose(measured[2][name], scores[2][name], rtol=1e-4)


def test_a_softmax_gives_the_same_scores(model, images, scores):
    softmax = type(model).from_config({**model.get_config(), "activation": "softmax"})
    softmax.set_weights(model.get_weights())
    measured = head_scores(softmax, (images, LABELS), blocks=[1], verbose=0)
    for name in SCORES:
        np.testing.assert_allclose(measured[1][name], scores[1][name], rtol=1e-3)


@pytest.mark.parametrize(
    ("coverage", "expected"),
    [
        ([1, 2, 3, 4], 1),
        ([9, 7, 2, 0], -1),
        ([1, 3, 2, 4], 0.8),  # 1 - 6 * 2 / (4 * 15)
        ([0, 0, 1, 1], np.sqrt(0.8)),  # ranks 1.5, 1.5, 3.5, 3.5
    ],
)
def test_rank_correlations_by_hand(coverage, expected):
    correlations = rank_correlations({3: {"mask_gradient": np.array([1, 4, 5, 60])}}, {3: coverage})
    assert correlations == {3: {"mask_gradient": pytest.approx(expected)}}


def test_rank_correlations_of_ties_agree_with_scipy():
    stats = pytest.importorskip("scipy.stats")
    rng = np.random.default_rng(1)
    values, coverage = rng.integers(0, 4, (2, 16))
    ours = rank_correlations({0: {"accuracy_drop": values}}, {0: coverage})
    assert ours[0]["accuracy_drop"] == pytest.approx(stats.spearmanr(values, coverage).statistic)


@pytest.mark.parametrize(("values", "coverage"), [([1, 2, 3], [2, 2, 2]), ([0, 0, 0], [1, 2, 3])])
def test_constant_values_have_no_rank_correlation(values, coverage):
    correlations = rank_correlations({0: {"accuracy_drop": values}}, {0: coverage})
    assert np.isnan(correlations[0]["accuracy_drop"])


@pytest.mark.parametrize("coverage", [{}, {0: [1, 2]}])
def test_coverage_must_fit(coverage):
    with pytest.raises(ValueError, match="each of the 3 heads of block 0. Received: "):
        rank_correlations({0: {"accuracy_drop": [1, 2, 3]}}, coverage)


@pytest.mark.parametrize(
    ("data", "blocks", "message"),
    [
        (lambda x: (x, LABELS), [0], r"some of \[1, 2\].* Received: blocks=\[0\]"),
        (lambda x: (x, LABELS), [1, 3], r"Received: blocks=\[1, 3\]"),
        (lambda x: (x, LABELS), [], r"Received: blocks=\[\]"),
        (lambda x: (x, LABELS + 1), None, "label 5"),
        (lambda x: x, None, "pair of arrays"),
        (lambda x: "nowhere.npz", None, "Received: name='nowhere.npz'"),
        (lambda x: (x[:0], LABELS[:0]), None, "Received: 0 images"),
        (lambda x: (x, LABELS[1:]), None, "one label per image"),
    ],
)
def test_bad_input(model, images, data, blocks, message):
    with pytest.raises(ValueError, match=message):
        head_scores(model, data(images), blocks, verbose=0)


def test_models_without_head_masks_are_refused(images):
    model = keras.Sequential([keras.Input((16, 16, 3)), keras.layers.Flatten()])
    with pytest.raises(ValueError, match="CCTImageClassifier.* Received: Sequential"):
        head_scores(model, (images, LABELS), verbose=0)
