"""Committees of text and series models, and what they teach."""

import keras
import numpy as np
import pytest

import lsmha_keras as lsmha
from tests.shp.texts import (
    LABELS,
    NAMES,
    question_data,
    questions,
    text_classifier,
    with_longer_padding,
)

SERIES = {"num_features": 2, "hidden_dim": 8, "num_heads": 2, "mlp_dim": 8, "num_layers": 1}


def probabilities(logits):
    exponentials = np.exp(logits.astype("float64"))
    return exponentials / exponentials.sum(axis=-1, keepdims=True)


@pytest.fixture(scope="module")
def members():
    """One model twice, for texts of two lengths, and one with its words in another order."""
    first, third = text_classifier(0), text_classifier(1, num_heads=2)
    words = first.preprocessor.vocabulary[::-1]
    third.preprocessor = lsmha.CCTTextClassifierPreprocessor(
        words, first.preprocessor.sequence_length
    )
    return [first, with_longer_padding(first), third]


def test_members_with_other_lengths_and_vocabularies_answer_together(members, tmp_path):
    texts, labels = questions(12)
    each = np.stack([member.predict(texts, verbose=0) for member in members], axis=1)
    committee = lsmha.SoftCommittee(members)
    np.testing.assert_allclose(committee.predict_members(texts, verbose=0), each, atol=1e-5)
    expected = probabilities(each).mean(axis=1)
    assert np.ptp(expected, axis=0).max() > 0.1
    outputs = committee.predict(texts, verbose=0)
    np.testing.assert_allclose(probabilities(outputs), expected, atol=1e-5)
    np.testing.assert_allclose(committee.predict(texts[3], verbose=0), outputs[3:4], atol=1e-5)
    committee.save_to_preset(tmp_path / "preset")
    clone = lsmha.SoftCommittee.from_config(committee.get_config())
    clone.set_weights(committee.get_weights())
    for again in (lsmha.load_classifier(tmp_path / "preset"), clone):
        assert [type(m).__name__ for m in again.members] == ["CCTTextClassifier"] * 3
        np.testing.assert_allclose(again.predict(texts, verbose=0), outputs, atol=1e-5)
    report = lsmha.measure_committee(committee, question_data(12), verbose=0)
    assert report.modes["soft"]["accuracy"] == np.mean(expected.argmax(axis=1) == labels)
    right = each.argmax(axis=-1) == labels[:, None]
    assert report.oracle_accuracy == right.any(axis=1).mean()


def test_a_committee_of_texts_trains():
    members = [text_classifier(0), text_classifier(1)]
    committee = lsmha.SoftCommittee(members)
    texts, labels = questions(8)
    before = members[1].get_weights()
    committee.compile(optimizer="sgd", loss="auto")
    history = committee.fit(texts, labels, epochs=1, verbose=0).history
    assert np.isfinite(history["loss"]).all()
    assert any((a != b).any() for a, b in zip(before, members[1].get_weights(), strict=True))


def test_a_committee_of_series_checks_them():
    keras.utils.set_random_seed(0)
    members = [
        lsmha.CCTSequenceClassifier(lsmha.CCTSequenceBackbone(8, **SERIES), 3) for _ in range(2)
    ]
    committee = lsmha.SoftCommittee(members, mode="logits")
    series = np.random.default_rng(0).normal(size=(5, 8, 2)).astype("float32")
    total = sum(member.predict(series, verbose=0) for member in members)
    np.testing.assert_allclose(committee.predict(series, verbose=0), total, atol=1e-5)
    np.testing.assert_allclose(committee.predict(series[2], verbose=0), total[2:3], atol=1e-5)
    assert committee.image_shape == (8, 2)
    with pytest.raises(ValueError, match="NaN|finite"):
        committee.predict(np.full_like(series, np.nan), verbose=0)
    with pytest.raises(ValueError, match="shape"):
        committee.predict(series[:, :5], verbose=0)


def _series(**options):
    backbone = lsmha.CCTSequenceBackbone(8, **{**SERIES, **options})
    return lsmha.CCTSequenceClassifier(backbone, LABELS)


def _ids(size):
    options = {name: value for name, value in SERIES.items() if name != "num_features"}
    backbone = lsmha.CCTSequenceBackbone(8, vocabulary_size=size, embedding_dim=4, **options)
    return lsmha.CCTSequenceClassifier(backbone, LABELS)


BAD = {
    "texts and series": (lambda: [text_classifier(), _series()], r"inputs=\['texts', 'series'\]"),
    "texts and images": (
        lambda: [
            text_classifier(),
            lsmha.CCTImageClassifier.from_preset("cct_2_3x2_h4", num_classes=LABELS),
        ],
        r"inputs=\['texts', 'images'\]",
    ),
    "widths of series": (lambda: [_series(), _series(num_features=3)], r"\(8, 3\)"),
    "numbers of ids": (lambda: [_ids(9), _ids(10)], r"vocabulary_size=\[9, 10\]"),
}


@pytest.mark.parametrize("name", BAD)
def test_members_that_do_not_fit_are_named(name):
    make, message = BAD[name]
    with pytest.raises(ValueError, match=message):
        lsmha.SoftCommittee(make())


def test_texts_are_taught_by_models_that_know_the_same_words(members):
    first, _, third = members
    student = text_classifier(2)
    texts, labels = questions(8)
    student.compile(optimizer="sgd", loss="auto")
    plain = student.evaluate(texts, labels, verbose=0)
    student.distill_from(lsmha.SoftCommittee([first, text_classifier(3)]), weight=1.0)
    taught = student.fit(texts, labels, epochs=1, batch_size=8, verbose=0).history["loss"][0]
    assert np.isfinite(taught) and abs(taught - np.ravel(plain)[0]) > 1e-3
    with pytest.raises(ValueError, match="agree on `vocabulary`"):
        student.distill_from(third)
    assert NAMES == student.class_names
