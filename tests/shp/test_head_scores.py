import keras
import numpy as np
import pytest

import lsmha_keras as lsmha
from lsmha_keras.shp.attention_profile import (
    attention_distance,
    attention_entropy,
    attention_offset,
    attention_similarity,
    linear_cka,
    token_distances,
    token_offsets,
)
from lsmha_keras.shp.head_score_table import HeadScoreTable, rank_correlations
from lsmha_keras.shp.head_scores import CLASSICAL, MEASURED, head_scores
from lsmha_keras.shp.performance import single_head_performance
from lsmha_keras.shp.readout_trainer import fit_readout
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
        elif "position" in weight.path:
            weight.assign(rng.normal(scale=0.2, size=weight.shape))  # else drawn anew each time
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
        block: dict.fromkeys([*MEASURED, "random"], (heads,)) for block, heads in HEADS.items()
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


def test_offset_and_redundancy_by_hand(model, images, scores):
    """Against loops over queries, and against kernel matrices over all tokens."""
    names = [f"block_{b}/{kind}" for b in HEADS for kind in ("attention_scores", "head_outputs")]
    values = model.intermediates(names)(model.preprocessor(images))
    places = np.array([(4 * row, 4 * column) for row in range(4) for column in range(4)])
    for block, heads in HEADS.items():
        weights = to_numpy(values[f"block_{block}/attention_scores"]).astype("float64")
        outputs = to_numpy(values[f"block_{block}/head_outputs"]).astype("float64")
        ways = sum(weights[:, :, q] @ (places - places[q]) for q in range(16)) / 16
        expected = np.hypot(*ways.mean(axis=0).T)
        np.testing.assert_allclose(scores[block]["offset"], expected, rtol=1e-3)
        alike, aligned = np.zeros((2, heads, heads))
        for h in range(heads):
            for g in range(heads):
                alike[h, g] = np.mean([np.corrcoef(w[h].flat, w[g].flat)[0, 1] for w in weights])
                aligned[h, g] = kernel_alignment(outputs[:, :, h], outputs[:, :, g])
        for name, found in (("map_redundancy", alike), ("output_redundancy", aligned)):
            np.fill_diagonal(found, -1)
            np.testing.assert_allclose(scores[block][name], found.max(axis=1), atol=1e-4)


def kernel_alignment(a, b):
    """By the matrices of inner products between samples, centred on both sides."""
    kernels = []
    for features in (a, b):
        features = features.reshape(-1, features.shape[-1])
        kernel = features @ features.T
        kernels.append(kernel - kernel.mean(0) - kernel.mean(1)[:, None] + kernel.mean())
    one, other = kernels
    return (one * other).sum() / np.sqrt((one * one).sum() * (other * other).sum())


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


def test_a_head_that_looks_to_the_right():
    offsets = token_offsets((2, 3), (4, 6))  # tokens of 2 x 2 pixels
    attention = np.eye(6, dtype="float32")[[1, 2, 2, 4, 5, 5]][None, None]
    # Two of three columns look a token to the right; the last has none there and sees itself.
    found = to_numpy(attention_offset(attention, offsets))
    np.testing.assert_allclose(found, [[[0, 2 * 2 / 3]]], atol=1e-6)
    inside = attention[:, :, [0, 1, 3, 4]]
    ways = np.einsum("bhqk,qkc->qc", inside, offsets[[0, 1, 3, 4]])
    np.testing.assert_array_equal(ways, [[0, 2]] * 4)


def test_heads_that_look_alike():
    maps = np.concatenate([SELF, SELF, FIRST_TOKEN, UNIFORM], axis=1)
    # Less their means the identity and one column have lengths sqrt(3), a product of 1 - 1 = 0.
    expected = [[1, 1, 0, 0], [1, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 0]]
    np.testing.assert_allclose(to_numpy(attention_similarity(maps))[0], expected, atol=1e-6)


def test_alignment_of_rotated_and_unrelated_outputs():
    rng = np.random.default_rng(0)
    first, other = rng.normal(size=(2, 5000, 3))
    turned = 7 * first @ np.linalg.qr(rng.normal(size=(3, 3)))[0]
    constant = np.ones((5000, 3))
    covariances = np.cov(np.concatenate([first, turned, other, constant], axis=1).T, bias=True)
    found = linear_cka(covariances, 4)
    np.testing.assert_allclose(found[:2, :2], 1, atol=1e-9)
    assert found[0, 2] < 0.01 and not found[3].any()


def test_single_heads_are_those_of_their_results(model, images):
    data = (images, LABELS)
    readouts = fit_readout(model, data, epochs=2, num_labels=CLASSES, verbose=0)
    methods = ["shp", "shp_clusters", "shp_snr"]
    table = head_scores(model, data, methods, readouts=readouts, verbose=0)
    results = single_head_performance(model, readouts, data, verbose=0)
    for block, result in results.items():
        covered = [len({label for c in clusters for label in c}) for clusters in result.clusters]
        assert table[block]["shp_coverage"].tolist() == covered
        assert table[block]["shp_clusters"].tolist() == [len(c) for c in result.clusters]
        ones = result.boolean.sum(axis=(1, 2)) - [
            sum(len(c) ** 2 for c in head) for head in result.clusters
        ]
        # Signal over internal and external noise, as defined: N C / (N C (C - 1) + n) * (K - 1).
        size = np.array(covered) / [max(1, len(c)) for c in result.clusters]
        noise = np.maximum(0, np.array(covered) * (size - 1)) + ones
        with np.errstate(divide="ignore", invalid="ignore"):
            snr = np.nan_to_num(np.array(covered) * (CLASSES - 1) / noise, nan=0, posinf=np.inf)
        np.testing.assert_allclose(table[block]["shp_snr"], snr)
    fitted = head_scores(model, data, ["shp"], readout_epochs=2, verbose=0)
    assert fitted.methods == ["shp_coverage"]
    for block in HEADS:
        np.testing.assert_array_equal(fitted[block]["shp_coverage"], table[block]["shp_coverage"])
    del readouts.weights[1]
    with pytest.raises(ValueError, match=r"only for the blocks \[2\]. Received: blocks=\[1\]"):
        head_scores(model, data, ["shp"], readouts=readouts, verbose=0)


def test_the_table_as_csv(scores, tmp_path):
    values = {
        block: {**found, "shp_snr": np.arange(len(x))}
        for block, found in scores.items()
        for x in [found["random"]]
    }
    values[1]["shp_snr"] = np.array([0.5, np.inf, 1e-300])
    table = HeadScoreTable(values, scores.weights)
    table.save(tmp_path / "scores.csv")
    loaded = HeadScoreTable.load(tmp_path / "scores.csv")
    assert loaded.weights == scores.weights and len(scores.weights) == 12
    assert loaded.methods == table.methods and list(loaded) == [1, 2]
    for block, found in table.items():
        for name, expected in found.items():
            np.testing.assert_array_equal(loaded[block][name], expected)
    assert str(table).splitlines()[1].split()[:2] == ["1", "0"]
    importance = table.importance("attention_entropy")
    np.testing.assert_array_equal(importance[2], -scores[2]["attention_entropy"])
    np.testing.assert_array_equal(table.importance("mask_gradient")[1], scores[1]["mask_gradient"])
    with pytest.raises(ValueError, match="nearest: mask_gradient.*'mask_grad'"):
        table.importance("mask_grad")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "scores of heads. Received: none"),
        ("block,head,mine\n", "scores of heads. Received: none"),
        ("block,mine\n0,1\n", "columns head"),
        ("block,head,mine\n0,0,high\n", "must hold numbers"),
        ("block,head,mine\n0,0,1\n0,2,1\n", r"block 0 the heads \[0, 2\]"),
    ],
)
def test_bad_tables(tmp_path, text, message):
    (tmp_path / "scores.csv").write_text(text)
    with pytest.raises(ValueError, match=message):
        HeadScoreTable.load(tmp_path / "scores.csv")


def test_tables_that_are_none():
    with pytest.raises(ValueError, match="same methods"):
        HeadScoreTable({0: {"mine": [1.0]}, 1: {"yours": [1.0]}})
    with pytest.raises(ValueError, match="one score for each head"):
        HeadScoreTable({0: {"mine": [1.0], "yours": [1.0, 2.0]}})


@pytest.mark.parametrize("methods", [["shp_cover"], []])
def test_unknown_methods(model, images, methods):
    with pytest.raises(ValueError, match="The scores are shp_coverage"):
        head_scores(model, (images, LABELS), methods, verbose=0)


@pytest.mark.parametrize("kind", ["one-hot", "PyDataset"])
def test_kinds_of_data_agree(model, images, scores, kind):
    class Batches(keras.utils.PyDataset):
        def __len__(self):
            return 2

        def __getitem__(self, index):
            part = slice(0, 9) if index == 0 else slice(9, IMAGES)
            return images[part], LABELS[part]

    dataset = Batches() if kind == "PyDataset" else (images, np.eye(CLASSES)[LABELS])
    methods = ["mask_gradient", "output_redundancy"]
    measured = head_scores(model, dataset, methods, blocks=[2], verbose=0)
    assert list(measured) == [2] and measured.methods == methods
    for name in methods:
        np.testing.assert_allclose(measured[2][name], scores[2][name], rtol=1e-4)


def test_a_softmax_gives_the_same_scores(model, images, scores):
    softmax = type(model).from_config({**model.get_config(), "activation": "softmax"})
    softmax.set_weights(model.get_weights())
    measured = head_scores(softmax, (images, LABELS), CLASSICAL, blocks=[1], verbose=0)
    assert measured.methods == list(CLASSICAL)
    for name in CLASSICAL:
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
        head_scores(model, data(images), ["accuracy_drop"], blocks, verbose=0)


def test_models_without_head_masks_are_refused(images):
    model = keras.Sequential([keras.Input((16, 16, 3)), keras.layers.Flatten()])
    with pytest.raises(ValueError, match="CCTImageClassifier.* Received: Sequential"):
        head_scores(model, (images, LABELS), verbose=0)
