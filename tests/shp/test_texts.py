"""Heads of text models: padding changes no figure, and the figures are those of a loop by hand."""

import keras
import numpy as np
import pytest

import lsmha_keras as lsmha
from lsmha_keras.models.block_walk import BlockWalk
from lsmha_keras.shp.controls import permuted_labels
from lsmha_keras.shp.exemplars import Exemplars, find_exemplars
from lsmha_keras.shp.head_scores import MEASURED
from tests.checks import to_numpy
from tests.shp.models import random_readouts
from tests.shp.texts import (
    LABELS,
    LENGTH,
    NAMES,
    question_data,
    questions,
    text_classifier,
    with_longer_padding,
)


@pytest.fixture(scope="module")
def model():
    return text_classifier()


@pytest.fixture(scope="module")
def readouts():
    return random_readouts([0, 1], labels=LABELS)


def _without_padding(model, text):
    """Head outputs of one text, `{block: (tokens, heads, width)}`, from a model of its length."""
    words = len(text.split())
    ids = model.preprocessor([text])[:, :words]
    backbone = type(model.backbone).from_config(
        {**model.backbone.get_config(), "sequence_length": words}
    )
    for layer in model.backbone.layers:
        weights = layer.get_weights()
        if layer.name == "position_embedding":
            weights = [weights[0][:, : backbone.get_layer(layer.name).grid_shape[0]]]
        backbone.get_layer(layer.name).set_weights(weights)
    names = [f"block_{i}/head_outputs" for i in (0, 1)]
    values = backbone.intermediates(names)(np.asarray(ids))
    return {i: to_numpy(values[f"block_{i}/head_outputs"])[0] for i in (0, 1)}


def test_fields_are_those_of_texts_without_padding(model, readouts):
    texts, labels = questions(12)
    results = lsmha.single_head_performance(model, readouts, (texts, labels), "both", verbose=0)
    sums = np.zeros((2, 2, 4, LABELS, LABELS))
    for text, label in zip(texts, labels, strict=True):
        for block, heads in _without_padding(model, text).items():
            pool, _, kernel = (weights.astype("float64") for weights in readouts.weights[block])
            own = heads * pool.reshape(4, -1)
            for p, logits in enumerate((own.sum(-1), own.sum((1, 2))[:, None] + np.zeros(4))):
                weights = np.exp(logits - logits.max(axis=0))
                weights /= weights.sum(axis=0)
                pooled = np.einsum("th,thd->hd", weights, heads)
                fields = np.einsum("hd,hdj->hj", pooled, kernel.reshape(4, -1, LABELS))
                sums[p, block, :, label] += fields
    means = sums / 3
    for p, pooling in enumerate(("recomputed", "frozen")):
        for block, result in results[pooling].items():
            np.testing.assert_allclose(result.class_means, means[p, block], atol=1e-4)


@pytest.mark.parametrize("kernel_size", [2, 4])
def test_longer_padding_gives_the_same_readouts_and_performance(kernel_size):
    """Fitted and measured anew: the readouts, the fields, and the control of permuted labels."""
    found = []
    model = text_classifier(tokenizer_kernel_size=kernel_size)
    for each in (model, with_longer_padding(model)):
        fitted = lsmha.fit_readout(each, question_data(), epochs=2, batch_size=16, verbose=0)
        fields = lsmha.single_head_performance(each, fitted, question_data(seed=1), verbose=0)
        control = permuted_labels(each, fitted, question_data(seed=1), verbose=0)
        found.append((fitted, fields, control))
    (fitted, fields, control), (other_fitted, other_fields, other_control) = found
    for block in (0, 1):
        for a, b in zip(fitted.weights[block], other_fitted.weights[block], strict=True):
            np.testing.assert_allclose(a, b, atol=1e-4)
        for a, b in ((fields, other_fields), (control, other_control)):
            np.testing.assert_allclose(a[block].class_means, b[block].class_means, atol=1e-4)
    assert fields[1].label_names == NAMES


@pytest.mark.parametrize("pooling", ["sequence", "lama"])
def test_longer_padding_gives_the_same_scores(pooling):
    model = text_classifier(pooling=pooling)
    found = [
        lsmha.head_scores(each, question_data(), MEASURED, batch_size=16, verbose=0)
        for each in (model, with_longer_padding(model))
    ]
    for block in (0, 1):
        for name in MEASURED:
            a, b = (table[block][name] for table in found)
            np.testing.assert_allclose(a, b, atol=1e-4, err_msg=name)
            assert np.ptp(a) > 0 or name == "accuracy_drop", name


def test_scores_of_one_text_are_those_without_padding(model):
    """Entropy, distance in words and offset of the attention, head by head."""
    text = "where is the king of stone"  # 6 words, 5 tokens of 2 words each
    names = ["attention_entropy", "attention_distance", "offset"]
    scores = lsmha.head_scores(model, ([text], np.array([0])), names, verbose=0)
    inside = model.intermediates(["block_1/attention_scores", "padding_mask"])
    values = inside(np.asarray(model.preprocessor([text])))
    count = int(to_numpy(values["padding_mask"]).sum())
    maps = to_numpy(values["block_1/attention_scores"])[0, :, :count, :count].astype("float64")
    np.testing.assert_allclose(maps.sum(axis=-1), 1, rtol=1e-5)
    step = model.backbone.tokenizer.stride
    way = step * (np.arange(count)[None] - np.arange(count)[:, None])
    by_hand = {
        "attention_entropy": -(maps * np.log(maps)).sum(-1).mean(-1),
        "attention_distance": (maps * np.abs(way)).sum(-1).mean(-1),
        "offset": np.abs((maps * way).sum(-1).mean(-1)),
    }
    for name, expected in by_hand.items():
        np.testing.assert_allclose(scores[1][name], expected, atol=1e-5, err_msg=name)


def test_texts_that_excite_heads_and_their_words(model, readouts):
    data = question_data()
    results = lsmha.single_head_performance(model, readouts, data, verbose=0)
    found = find_exemplars(model, readouts, data, results, 2, batch_size=8, verbose=0)
    other = with_longer_padding(model)
    longer = find_exemplars(other, readouts, data, results, 2, batch_size=8, verbose=0)
    assert found.images.dtype.kind == "U" and found.grid_shape == (LENGTH, 1)
    texts = data.load(np.arange(len(data))).tolist()
    assert set(found.images) <= set(texts)
    np.testing.assert_array_equal(found.image, longer.image)
    np.testing.assert_allclose(found.response, longer.response, rtol=1e-3)
    np.testing.assert_allclose(found.maps, longer.maps[:, :LENGTH], atol=1e-4)
    np.testing.assert_allclose(found.maps.sum(axis=-1), 1, rtol=1e-4)
    words = np.array([len(text.split()) for text in found.images])[found.image]
    padding = np.arange(LENGTH) >= words[:, None]
    assert padding.any() and not found.maps[padding].any() and not longer.maps[:, LENGTH:].any()
    again = Exemplars(**found.arrays())
    assert again.images.tolist() == found.images.tolist()


def test_the_callback_measures_texts_while_they_are_learnt():
    model = text_classifier()
    data = question_data(16)
    callback = lsmha.SHPCallback(data, data)
    texts, labels = questions(16)
    history = model.fit(texts, labels, epochs=1, verbose=0, callbacks=[callback]).history
    assert np.isfinite(history["shp/block_1_noise_per_head"]).all()
    assert callback.results[0].label_names == NAMES


def test_series_with_and_without_padding():
    keras.utils.set_random_seed(0)
    options = {"num_features": 2, "hidden_dim": 16, "num_heads": 4, "mlp_dim": 16}
    backbone = lsmha.CCTSequenceBackbone(8, mask_value=-1.0, **options)
    padded = lsmha.CCTSequenceClassifier(backbone, LABELS)
    series = np.random.default_rng(0).normal(size=(16, 8, 2)).astype("float32")
    series[::2, 5:] = -1
    labels = np.arange(16) % LABELS
    readouts = random_readouts([0, 1], labels=LABELS)
    results = lsmha.single_head_performance(padded, readouts, (series, labels), verbose=0)
    longer = with_longer_series(padded)
    wide = np.pad(series, ((0, 0), (0, 3), (0, 0)), constant_values=-1)
    others = lsmha.single_head_performance(longer, readouts, (wide, labels), verbose=0)
    plain = lsmha.CCTSequenceClassifier(lsmha.CCTSequenceBackbone(8, **options), LABELS)
    plain.set_weights(padded.get_weights())
    counted = lsmha.single_head_performance(plain, readouts, (series, labels), verbose=0)
    for block in (0, 1):
        np.testing.assert_allclose(results[block].class_means, others[block].class_means, atol=1e-5)
        # Labels 1 and 3 have series without padding only, and the mask makes no difference there.
        same = np.abs(results[block].class_means - counted[block].class_means).max(axis=(0, 2))
        assert same[[1, 3]].max() < 1e-5 < same[[0, 2]].min()


def with_longer_series(model):
    backbone = type(model.backbone).from_config(
        {**model.backbone.get_config(), "sequence_length": 11}
    )
    for layer in model.backbone.layers:
        weights, copy = layer.get_weights(), backbone.get_layer(layer.name)
        if layer.name == "position_embedding":
            (longer,) = copy.get_weights()
            longer[:, : weights[0].shape[1]] = weights[0]
            weights = [longer]
        copy.set_weights(weights)
    return model.with_backbone(backbone)


BAD = {
    "no mask": (
        lambda m: BlockWalk(m.backbone).run(0, np.zeros((1, 6, 16), "float32")),
        "padding_mask=None",
    ),
    "augment": (
        lambda m: lsmha.fit_readout(m, questions(8), augment=True, verbose=0),
        "augment=True",
    ),
    "empty text": (
        lambda m: lsmha.fit_readout(m, (["who", ""], [0, 1]), verbose=0),
        "text 1, ''",
    ),
    "ids": (
        lambda m: lsmha.head_scores(m, (np.full((2, LENGTH), 99), [0, 1]), verbose=0),
        "from 99 to 99",
    ),
    "label": (
        lambda m: lsmha.head_scores(m, (["who", "what"], [0, 9]), verbose=0),
        "label 9 of sample 1",
    ),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_input_is_named(name, model):
    mistake, message = BAD[name]
    with pytest.raises(ValueError, match=message):
        mistake(model)
