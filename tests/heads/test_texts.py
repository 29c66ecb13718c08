"""Explaining texts and series: words get what their tokens weigh, and padding nothing."""

import csv

import numpy as np
import pytest

import lsmha_keras as lsmha
from lsmha_keras.heads.attention_trace import trace_attention
from lsmha_keras.heads.explain import explain_all
from lsmha_keras.heads.pursuit import _pooled_heads, class_atoms
from lsmha_keras.heads.report import write_explanations
from lsmha_keras.layers.sequence_tokenizer import SequenceTokenizer
from tests.checks import to_numpy
from tests.shp.texts import (
    LABELS,
    NAMES,
    question_data,
    questions,
    text_classifier,
    with_longer_padding,
)

TEXT = "Where is the king of stone ?"
METHODS = ["rollout", "flow", "relevance", "maps", "occlusion"]


@pytest.fixture(scope="module")
def model():
    return text_classifier()


def test_which_words_make_up_a_token():
    """Kernels of 2 and pooling of 2, of five words and two places of padding: by hand."""
    layer = SequenceTokenizer(4, kernel_size=2)
    layer.build((None, 7, 3))
    # Convolution c sees the words c - 1 and c; token t the convolutions 2 t - 1 and 2 t.
    ways = np.zeros((5, 7))
    for token in range(5):
        for conv in (2 * token - 1, 2 * token):
            for word in (conv - 1, conv):
                if 0 <= conv <= 7 and 0 <= word < 5:
                    ways[token, word] += 1
    ways[4] = 0  # it sees padding only
    found = layer.token_sources(np.arange(7) < 5)
    expected = ways / np.maximum(ways.sum(axis=1, keepdims=True), 1)
    np.testing.assert_allclose(found, expected)
    one = SequenceTokenizer(4, num_layers=0).token_sources(np.arange(3) < 2)
    np.testing.assert_array_equal(one, np.diag([1.0, 1.0, 0.0]))


@pytest.mark.parametrize("pooling", ["sequence", "lama"])
def test_longer_padding_explains_the_same(pooling):
    pytest.importorskip("scipy")
    model = text_classifier(pooling=pooling)
    found = explain_all(model, TEXT, METHODS)
    longer = explain_all(with_longer_padding(model), TEXT, METHODS)
    for method in METHODS:
        a, b = found[method], longer[method]
        assert a.words == ["Where", "is", "the", "king", "of", "stone", "?"]
        assert a.tokens.shape == (7,) and a.label == b.label
        np.testing.assert_allclose(a.tokens, b.tokens, atol=1e-4, err_msg=method)
        assert np.ptp(a.tokens) > 1e-3, method
        if method in ("rollout", "flow", "maps"):  # nothing is lost to padding
            np.testing.assert_allclose(a.tokens.sum(), 1, rtol=1e-4)
    for block, maps in found["maps"].head_maps.items():
        assert maps.shape == (4, 7)
        np.testing.assert_allclose(maps, longer["maps"].head_maps[block], atol=1e-4)


def test_occlusion_replaces_one_word_after_the_other(model):
    found = lsmha.explain(model, TEXT, "occlusion", label="place")
    before = model.predict(TEXT, verbose=0)[0, found.label]
    words = TEXT.split()
    for place, fall in enumerate(found.tokens):
        other = " ".join([*words[:place], "nonsense", *words[place + 1 :]])
        after = model.predict(other, verbose=0)[0, found.label]
        np.testing.assert_allclose(fall, before - after, atol=1e-5)


@pytest.mark.parametrize("pooling", ["sequence", "lama"])
def test_derivatives_by_the_pooling_add_up_to_the_logit(pooling):
    """The logit is linear in the pooling's weights, of LAMA in those of all its heads."""
    model = text_classifier(pooling=pooling)
    ids = model.preprocessor(questions(3)[0])
    trace = trace_attention(model, ids, [0, 1, 2])
    logits = to_numpy(model(ids)) - to_numpy(model.output_dense.bias)
    found = (trace.pooling * trace.pooling_gradients).sum(axis=1)
    np.testing.assert_allclose(found, logits[np.arange(3), [0, 1, 2]], atol=1e-4)


def test_gradients_of_maps_are_those_of_texts_without_padding(model):
    """A small change of one weight moves the logit as the derivative says; padding has none."""
    ids = model.preprocessor([TEXT])
    trace = trace_attention(model, ids, [1])
    longer = trace_attention(with_longer_padding(model), np.pad(ids, ((0, 0), (0, 7))), [1])
    tokens = trace.pooling.shape[1]
    for block, gradients in trace.gradients.items():
        seen = trace.maps[block] * gradients
        np.testing.assert_allclose(
            seen,
            longer.maps[block][..., :tokens, :tokens]
            * longer.gradients[block][..., :tokens, :tokens],
            atol=1e-4,
        )
    assert not longer.pooling[0, tokens:].any()


def test_files_of_an_explanation(model, tmp_path):
    pytest.importorskip("matplotlib", reason='figures need pip install "lsmha-keras[plots]"')
    found = explain_all(model, TEXT, ["relevance", "maps", "occlusion"])
    page = write_explanations(found, tmp_path / "out", "Why?", "about").read_text(encoding="utf-8")
    assert '"words": ["Where", "is", "the", "king", "of", "stone", "?"]' in page
    with open(tmp_path / "out" / "relevance.csv", encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["word"] for row in rows] == found["maps"].words
    shown = [float(row["occlusion"]) for row in rows]
    np.testing.assert_allclose(shown, found["occlusion"].tokens, rtol=1e-5)
    names = {path.name for path in (tmp_path / "out").iterdir()}
    assert {"relevance.png", "occlusion.svg", "heads.png"} <= names


def test_words_are_coloured_in_the_browser(model, tmp_path, browser):
    pytest.importorskip("matplotlib")
    found = explain_all(model, "Where </script> <b>king", ["relevance", "occlusion", "maps"])
    file = write_explanations(found, tmp_path / "out", "Why?", "")
    page = browser.new_page()
    errors = []
    page.on("pageerror", lambda error: errors.append(str(error)))
    page.goto(file.as_uri())
    words = page.locator("#words span")
    assert words.all_inner_texts() == found["maps"].words
    page.click("#methods button >> nth=2")
    style = "element => getComputedStyle(element).backgroundColor"
    alphas = [_alpha(word.evaluate(style)) for word in words.all()]
    assert int(np.argmax(alphas)) == int(found["maps"].tokens.argmax())
    words.nth(1).hover()
    assert f"{found['maps'].tokens[1]:.3g}"[:4] in page.inner_text("#value")
    assert not page.locator(".pictures").is_visible() and errors == []
    page.close()


def _alpha(color):
    parts = color[color.index("(") + 1 : -1].split(",")
    return float(parts[3]) if len(parts) > 3 else 1.0


def test_series_are_explained_step_by_step():
    options = {"hidden_dim": 8, "num_heads": 2, "mlp_dim": 8, "tokenizer_kernel_size": 3}
    backbone = lsmha.CCTSequenceBackbone(8, num_features=2, mask_value=-1.0, **options)
    model = lsmha.CCTSequenceClassifier(backbone, LABELS)
    series = np.random.default_rng(0).normal(size=(8, 2)).astype("float32")
    series[6:] = -1
    found = explain_all(model, series, ["rollout", "occlusion"], label=2)
    assert found["rollout"].words == list("012345")
    np.testing.assert_allclose(found["rollout"].tokens.sum(), 1, rtol=1e-5)
    changed = series.copy()
    changed[3] = series[:6].mean(axis=0)
    fall = model.predict(series, verbose=0)[0, 2] - model.predict(changed, verbose=0)[0, 2]
    np.testing.assert_allclose(found["occlusion"].tokens[3], fall, atol=1e-6)


def test_curves_hide_the_most_relevant_words_first(model):
    texts, _ = questions(6)
    data, methods = (np.array(texts, object), np.zeros(6, int)), ["occlusion", "random"]
    both = [
        lsmha.explanation_curves(m, data, methods, steps=3, verbose=0)
        for m in (model, with_longer_padding(model))
    ]
    for row, text in enumerate(texts):
        found = lsmha.explain(model, text, "occlusion")
        order = np.argsort(-found.tokens, kind="stable")
        for step, share in enumerate(both[0].shares):
            first = order[: round(share * len(order))]
            for curve, hidden in (("deletion", first), ("insertion", set(order) - set(first))):
                words = ["nonsense" if i in hidden else w for i, w in enumerate(found.words)]
                outputs = model.predict(" ".join(words), verbose=0)
                expected = model.probabilities(outputs)[0, found.label]
                value = getattr(both[0], curve)["occlusion"][row, step]
                np.testing.assert_allclose(value, expected, atol=1e-5)
    for curve in ("deletion", "insertion"):
        short, longer = (getattr(curves, curve) for curves in both)
        np.testing.assert_allclose(short["occlusion"], longer["occlusion"], atol=1e-5)
        ends = [0, 3]  # all orders meet there
        np.testing.assert_allclose(short["random"][:, ends], longer["random"][:, ends], atol=1e-5)


def test_curves_of_series_end_at_the_mean_of_their_steps():
    options = {"hidden_dim": 16, "num_heads": 4, "mlp_dim": 16}
    backbone = lsmha.CCTSequenceBackbone(8, num_features=2, mask_value=-1.0, **options)
    model = lsmha.CCTSequenceClassifier(backbone, LABELS)
    series = np.random.default_rng(0).normal(size=(3, 8, 2)).astype("float32")
    series[0, 6:] = -1
    curves = lsmha.explanation_curves(
        model, (series, np.zeros(3, int)), ["rollout", "random"], steps=2, verbose=0
    )
    means = series.copy()
    means[0, :6], means[1:] = series[0, :6].mean(axis=0), series[1:].mean(axis=1, keepdims=True)
    whole, hidden = (model.probabilities(model.predict(x, verbose=0)) for x in (series, means))
    labels = whole.argmax(axis=1)
    for method in ("rollout", "random"):
        ends = curves.deletion[method][:, [0, 2]]
        expected = np.stack([whole[range(3), labels], hidden[range(3), labels]], axis=1)
        np.testing.assert_allclose(ends, expected, atol=1e-5)
        np.testing.assert_allclose(curves.insertion[method][:, [2, 0]], expected, atol=1e-5)


@pytest.mark.parametrize("pooling", ["sequence", "lama"])
def test_atoms_and_what_heads_write_add_up_to_the_logits(pooling):
    """In the last block, but for skip connection and norms: with norms that do nothing."""
    model = text_classifier(pooling=pooling)
    backbone = model.backbone
    atoms = class_atoms(model, 1)  # (heads, classes, means * width)
    written = _pooled_heads(model, [1], questions(6), 4, 0, {})[1]
    found = np.einsum("bhd,hkd->bk", written, atoms)
    # By hand: the block's attention output, pooled by the model's own weights.
    ids = model.preprocessor(questions(6)[0])
    names = ["block_1/head_outputs", "output", "padding_mask"]
    values = {k: to_numpy(v) for k, v in model.intermediates(names)(ids).items()}
    heads = values["block_1/head_outputs"]
    attended = heads.reshape(*heads.shape[:2], -1) @ to_numpy(
        backbone.blocks[1].attention.projection.kernel
    )
    for norm in (backbone.blocks[1].mlp_norm, backbone.layer_norm):
        attended = (attended - attended.mean(axis=-1, keepdims=True)) * to_numpy(norm.gamma)
    mask = values["padding_mask"].astype(bool)
    weights = to_numpy(model.pooler.token_weights(values["output"], mask))
    weights = weights.reshape(6, -1, weights.shape[-1])
    pooled = np.einsum("bmt,btc->bmc", weights, attended).reshape(6, -1)
    expected = pooled @ to_numpy(model.output_dense.kernel)
    np.testing.assert_allclose(found, expected, atol=1e-4)


def test_pursuit_and_interventions_leave_padding_out(model):
    data = question_data()
    found = [lsmha.head_pursuit(m, data, verbose=0) for m in (model, with_longer_padding(model))]
    for block in (0, 1):
        np.testing.assert_array_equal(found[0].classes[block], found[1].classes[block])
        np.testing.assert_allclose(found[0].explained[block], found[1].explained[block], atol=1e-4)
    texts, labels = questions()
    rows = lsmha.intervene_on_heads(model, data, [(0, 1)], NAMES, scale=0.0, draws=0, verbose=0)
    own = model.predict(texts, verbose=0).argmax(axis=1) == labels
    mask = np.array([1.0, 0, 1, 1], "float32")
    inside = model.intermediates(["logits"], {0: mask})
    masked = to_numpy(inside(model.preprocessor(texts))["logits"]).argmax(axis=1) == labels
    assert [row["accuracy"] for row in rows] == [own.mean(), masked.mean()]


BAD = {
    "empty": (lambda m: lsmha.explain(m, "  "), "must have a word"),
    "no text": (lambda m: lsmha.explain(m, np.ones((3, 3))), "shape"),
    "label": (lambda m: lsmha.explain(m, TEXT, label="persn"), "person"),
    "picture": (lambda m: lsmha.explain(m, TEXT, "rollout").overlay(), "no.* laid over a picture"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_input_is_named(name, model):
    mistake, message = BAD[name]
    with pytest.raises(ValueError, match=message):
        mistake(model)
