"""Pruned, shared and sleeping heads of text models, and windows of several sizes over words."""

import numpy as np
import pytest

import lsmha_keras as lsmha
from tests.checks import to_numpy
from tests.shp.texts import question_data, questions, text_classifier, with_longer_padding


def test_a_pruned_text_model_is_one_with_masked_heads():
    model = text_classifier(pooling="lama")
    smaller = lsmha.prune_heads(model, remove={0: [1], 1: [0, 3]})
    masks = {0: np.array([1.0, 0, 1, 1]), 1: np.array([0.0, 1, 1, 0])}
    ids = model.preprocessor(questions(8)[0])
    expected = to_numpy(model.intermediates(["logits"], masks)(ids)["logits"])
    found = smaller.predict(questions(8)[0], verbose=0)
    np.testing.assert_allclose(found, expected, atol=1e-5)
    assert type(smaller) is lsmha.CCTTextClassifier


def test_similarity_of_heads_leaves_padding_out():
    pytest.importorskip("scipy")
    model = text_classifier()
    data = question_data()
    alike, longer = (
        lsmha.head_similarity(m, data, verbose=0) for m in (model, with_longer_padding(model))
    )
    for block in (0, 1):
        np.testing.assert_allclose(alike[block], longer[block], atol=1e-4)
        np.testing.assert_allclose(np.diag(alike[block]), 1, atol=1e-4)
    # By hand, of a text of two words and so of two tokens of the last block.
    names = ["block_1/attention_scores", "padding_mask"]
    values = model.intermediates(names)(model.preprocessor(["who king"]))
    count = int(to_numpy(values["padding_mask"]).sum())
    maps = to_numpy(values["block_1/attention_scores"])[0, :, :count, :count].reshape(4, -1)
    maps = maps - maps.mean(axis=1, keepdims=True)
    maps /= np.linalg.norm(maps, axis=1, keepdims=True)
    found = lsmha.head_similarity(model, (["who king"], np.array([1])), verbose=0)[1]
    np.testing.assert_allclose(found, maps @ maps.T, atol=1e-4)
    shared = lsmha.share_heads(model, 4, similarity=alike)
    texts = questions(8)[0]
    np.testing.assert_allclose(
        shared.predict(texts, verbose=0), model.predict(texts, verbose=0), atol=1e-5
    )


def test_heads_sleep_and_are_left_out_while_texts_are_learnt():
    texts, labels = questions(16)
    model = text_classifier(head_dropout=0.25, head_dropout_by="importance")
    masks = lsmha.MaskImportantHeads((texts, labels))
    schedule = lsmha.HeadSchedule((texts, labels), {1: 0.5})
    model.compile(optimizer="sgd", loss="auto")
    model.fit(texts, labels, epochs=1, verbose=0, callbacks=[masks, schedule])
    assert len(masks.left_out) == 2 and sum(map(len, schedule.asleep.values())) == 4
    found = schedule.pruned().predict(texts, verbose=0)
    np.testing.assert_allclose(found, model.predict(texts, verbose=0), atol=1e-5)


@pytest.mark.parametrize("shape", ["band", "chunk"])
def test_heads_see_windows_of_several_sizes_over_words(shape):
    sizes = [1, 2, 3, None]
    options = {"windows": sizes, "shape": shape}
    model = text_classifier(attention="windows", attention_options=options)
    ids = model.preprocessor(["where is the king of stone", "what"])
    values = model.intermediates(["block_0/attention_scores", "padding_mask"])(ids)
    maps, mask = (to_numpy(value) for value in values.values())
    places = np.arange(maps.shape[-1])
    for head, size in enumerate(sizes):
        if shape == "chunk":
            near = places[:, None] // (size or 99) == places // (size or 99)
        else:
            near = np.abs(places[:, None] - places) <= (99 if size is None else size)
        for text in (0, 1):
            valid = mask[text].astype(bool)
            seen = maps[text, head] > 0
            np.testing.assert_array_equal(seen[valid], (near & valid)[valid])
    texts = questions(8)[0]
    longer = with_longer_padding(model)
    np.testing.assert_allclose(
        longer.predict(texts, verbose=0), model.predict(texts, verbose=0), atol=1e-5
    )
    assert lsmha.prune_heads(model, remove={0: [3], 1: [0]}).backbone.num_heads == 3
