"""Explanations of a classifier's labels, on every backend."""

import keras
import numpy as np
import pytest
from keras import ops
from PIL import Image

import lsmha_keras as lsmha
from lsmha_keras.errors import InputError
from lsmha_keras.heads.attention_trace import trace_attention
from lsmha_keras.heads.explain import METHODS, explain_all, painted, prepared, token_relevance
from lsmha_keras.heads.explanation import Explanation
from tests.heads.models import classifier
from tests.shp.models import LABELS, pictures


@pytest.fixture(scope="module")
def model():
    return classifier()


@pytest.fixture(scope="module")
def explained(model):
    return explain_all(model, pictures(1)[0][0], label="name 3")


def logit(model, image, block=None, scale=None):
    """The logit of class 3, in inference mode, with one head's output scaled."""
    x = model.backbone.tokenizer(ops.convert_to_tensor(image))
    x = model.backbone.position_embedding_layer(x)
    for i, layer in enumerate(model.backbone.blocks):
        x = layer(x, head_scale=scale) if i == block else layer(x)
    pooled = model.pooler(model.backbone.layer_norm(x))
    return float(ops.convert_to_numpy(model.output_dense(pooled))[0, 3])


# The second mixes weights, in the other core; outputs of heads stay linear in what comes out. Heads
# of the third share maps.
@pytest.mark.parametrize("kind", ["multi_head", "talking", "clustered"])
def test_derivatives_by_maps_are_those_by_scales_of_heads(kind):
    model = classifier(attention=kind)
    image = prepared(model, pictures(1)[0])
    trace = trace_attention(model, image, [3])
    assert sorted(trace.maps) == [1, 2, 3]
    step = 0.02
    for block, head in [(1, 0), (3, 2)]:
        # A head's output is its weights times something: scaling one is scaling the other.
        found = np.sum(trace.maps[block] * trace.gradients[block], axis=(2, 3))[0, head]
        unit = np.eye(4, dtype="float32")[head]
        ends = [logit(model, image, block, 1 + sign * step * unit) for sign in (1, -1)]
        # Central differences are right to step**2; the logits are rounded to float32.
        assert abs(found) > 1e-3
        assert found == pytest.approx((ends[0] - ends[1]) / (2 * step), rel=2e-2, abs=2e-4)


def test_derivatives_by_the_pooling(model):
    image = prepared(model, pictures(1)[0])
    trace = trace_attention(model, image, [3])
    bias = ops.convert_to_numpy(model.output_dense.bias)[3]
    np.testing.assert_allclose(trace.pooling.sum(axis=1), 1, rtol=1e-6)
    # The logit is the pooled sum of what each token alone would give.
    total = np.sum(trace.pooling * trace.pooling_gradients)
    assert total + bias == pytest.approx(logit(model, image), rel=1e-4, abs=1e-5)


def test_blocks_without_maps_in_between_are_run_too():
    backbone = lsmha.CCTBackbone(
        image_shape=(16, 16, 3),
        hidden_dim=16,
        num_layers=4,
        num_heads=4,
        mlp_dim=16,
        tokenizer_layers=2,
        blocks=["conv", "attention", "spectral", "attention"],
    )
    model = lsmha.CCTImageClassifier(backbone, LABELS)
    image = np.random.default_rng(0).normal(size=(1, 16, 16, 3)).astype("float32")
    trace = trace_attention(model, image, [3])
    assert sorted(trace.maps) == sorted(trace.gradients) == [1, 3]
    total = np.sum(trace.pooling * trace.pooling_gradients)
    assert total == pytest.approx(logit(model, image), rel=1e-3, abs=1e-6)


def test_a_kind_without_one_map_per_head_is_refused_by_name():
    model = classifier(attention="hilo")
    image = pictures(1)[0][0]
    with pytest.raises(InputError, match="convert_attention.*Received: attention='hilo'"):
        token_relevance(model, image[None], [3], ["relevance"])
    (tokens,) = token_relevance(model, image[None], [3], ["rollout"])["rollout"]
    assert tokens.sum() == pytest.approx(1, rel=1e-5)


def test_a_kind_without_scores_is_refused_by_name():
    model = classifier(attention="normlin")
    with pytest.raises(InputError, match="no scores.*attention='normlin'"):
        token_relevance(model, pictures(1)[0], [3], ["rollout"])


def test_every_method_gives_tokens_and_a_map_of_the_images_size(explained):
    assert list(explained) == list(METHODS)
    for method, explanation in explained.items():
        assert explanation.method == method and explanation.name == "name 3"
        assert explanation.tokens.shape == (16,) and explanation.grid_shape == (4, 4)
        assert explanation.map.shape == explanation.image.shape[:2] == (16, 16)
        assert explanation.probabilities.sum() == pytest.approx(1)
        assert np.isfinite(explanation.tokens).all()
    for method in ("rollout", "flow", "maps"):
        assert explained[method].tokens.sum() == pytest.approx(1, rel=1e-5)
    assert explained["relevance"].tokens.min() >= 0
    maps = explained["maps"]
    assert {block: m.shape for block, m in maps.head_maps.items()} == dict.fromkeys(
        (1, 2, 3), (4, 16)
    )
    np.testing.assert_allclose(maps.tokens, maps.head_maps[3].mean(axis=0), rtol=1e-6)


# Tokens 0, 9, 27 and 62, and the deviation of all 64, of the picture below: computed on torch.
RECORDED = {
    "rollout": ([0.005057745, 0.011031484, 0.012196064, 0.010604917], 0.015426833),
    "flow": ([0.009712508, 0.015500040, 0.015582693, 0.015463958], 0.004860481),
    "relevance": ([0.000267494, 0.000373339, 0.001493291, 0.001123332], 0.009912591),
    "maps": ([0.005202107, 0.011002724, 0.012044987, 0.016423312], 0.009601521),
    "occlusion": ([-0.144573718, 0.324670911, -0.014382362, -0.202572867], 0.236448862),
}


def test_backends_agree_on_a_trained_model_with_convolutional_blocks():
    rows, columns = np.indices((32, 32))
    disc = 255 * ((rows - 20) ** 2 + (columns - 9) ** 2 < 40)
    image = np.stack([8 * rows, 8 * columns, disc], axis=-1).astype("uint8")
    model = lsmha.CCTImageClassifier.from_preset("lsmha-small")
    for method, explanation in explain_all(model, image, label="sea").items():
        expected, deviation = RECORDED[method]
        assert explanation.tokens.std() == pytest.approx(deviation, rel=1e-4)
        np.testing.assert_allclose(
            explanation.tokens[[0, 9, 27, 62]], expected, rtol=0, atol=1e-4 * deviation
        )


def test_occlusion_is_the_fall_of_the_logit(model, explained):
    image = pictures(1)[0][0].astype("float32")
    for token, (row, column) in {0: (0, 0), 7: (4, 12)}.items():
        hidden = image.copy()
        hidden[row : row + 4, column : column + 4] = image.mean(axis=(0, 1))
        whole, less = model.predict(np.stack([image, hidden]), verbose=0)[:, 3]
        assert explained["occlusion"].tokens[token] == pytest.approx(whole - less, abs=1e-4)


def test_images_of_a_batch_are_explained_on_their_own(model, explained):
    images = np.stack([pictures(2)[0][1], pictures(1)[0][0]])
    for method, rows in token_relevance(model, images, [1, 3], ["rollout", "relevance"]).items():
        np.testing.assert_allclose(rows[1], explained[method].tokens, rtol=1e-4, atol=1e-6)


def test_without_a_label_the_most_likely_is_explained(model):
    image = pictures(1)[0][0]
    explanation = lsmha.explain(model, image, "rollout")
    assert explanation.label == model.predict(image, verbose=0).argmax()


def test_a_model_that_ends_with_probabilities_is_explained_by_its_logits(model, explained):
    other = lsmha.CCTImageClassifier(
        model.backbone, LABELS, model.preprocessor, activation="softmax"
    )
    other.pooler.set_weights(model.pooler.get_weights())
    other.output_dense.set_weights(model.output_dense.get_weights())
    explanation = lsmha.explain(other, pictures(1)[0][0], label=3)
    np.testing.assert_allclose(explanation.tokens, explained["relevance"].tokens, rtol=1e-4)
    np.testing.assert_allclose(
        explanation.probabilities, explained["relevance"].probabilities, atol=1e-5
    )


def test_files_photos_and_arrays_give_the_same(model, tmp_path):
    photo = Image.fromarray(np.random.default_rng(0).integers(0, 256, (40, 50, 3), dtype="uint8"))
    photo.save(tmp_path / "photo.png")
    sources = [tmp_path / "photo.png", photo, np.asarray(photo)]
    found = [lsmha.explain(model, source, "rollout") for source in sources]
    assert found[0].image.shape == (32, 32, 3)  # twice the model's size fits into the photo
    for other in found[1:]:
        np.testing.assert_array_equal(other.image, found[0].image)
        np.testing.assert_array_equal(other.tokens, found[0].tokens)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"method": "relevence"}, r"nearest: relevance\).*Received: method='relevence'"),
        ({"label": "name4"}, r"nearest: name 4\).*Received: label='name4'"),
        ({"label": 5}, "from 0 to 4. Received: label=5"),
        ({"label": 1.5}, "Received: label=1.5"),
        ({"image": np.zeros((16, 16), "uint8")}, r"Received: shape \(16, 16\)"),
        ({"image": np.full((16, 16, 3), -1)}, "Received: values from -1"),
        ({"image": b"pixels"}, "Received: bytes"),
        ({"model": keras.Sequential()}, "Received: Sequential"),
    ],
)
def test_what_cannot_be_explained_is_named(model, arguments, message):
    image = np.zeros((16, 16, 3), "uint8")
    with pytest.raises(InputError, match=message):
        lsmha.explain(**{"model": model, "image": image, **arguments})


def test_a_file_that_is_no_image_is_named(model, tmp_path):
    (tmp_path / "notes.jpg").write_text("no image")
    with pytest.raises(InputError, match=r"notes\.jpg is not a sound image file"):
        lsmha.explain(model, tmp_path / "notes.jpg")


def test_a_model_without_attention_has_occlusion_only():
    model = lsmha.CCTImageClassifier.from_preset(
        "cct_2_3x2_h4_c2", num_classes=3, image_shape=(16, 16, 3), hidden_dim=16
    )
    with pytest.raises(InputError, match="method='occlusion'` works.*without transformer blocks"):
        lsmha.explain(model, pictures(1)[0][0])
    assert lsmha.explain(model, pictures(1)[0][0], "occlusion").tokens.shape == (16,)


# Pictures


@pytest.mark.backend_free
def test_cells_are_painted_in_the_mean_colour():
    image = np.arange(36, dtype="float32").reshape(6, 6, 1)
    found = painted(image, np.array([False, True, False, False]), (2, 2))[0, :, :, 0]
    expected = image[..., 0].copy()
    expected[:3, 3:] = 17.5
    np.testing.assert_array_equal(found, expected)


def explanation(tokens, image=None):
    image = np.full((8, 8, 3), 100, "uint8") if image is None else image
    return Explanation("rollout", image, np.array(tokens, float), (2, 2), 0, np.array([0.8, 0.2]))


@pytest.mark.backend_free
def test_overlays_are_grey_where_nothing_matters_and_red_where_most_does():
    image = np.zeros((8, 8, 3), "uint8")
    image[:] = (200, 100, 0)
    grey = round(0.299 * 200 + 0.587 * 100)
    assert (explanation([0, 0, 0, 0], image).overlay() == grey).all()
    painted_over = explanation([0, 0, 0, 1], image).overlay()
    assert (painted_over[0, 0] == grey).all()
    # Three quarters of the darkest red, one of the image.
    np.testing.assert_allclose(
        painted_over[-1, -1], 0.75 * np.array([165, 15, 35]) + 0.25 * grey, atol=0.51
    )
    assert (explanation([-1, -1, -1, -1], image).overlay() == grey).all()


@pytest.mark.backend_free
def test_maps_are_bilinear_between_the_centres_of_cells():
    found = explanation([0, 8, 0, 8]).map
    assert found.dtype == np.float32
    # Centres of cells lie at 2 and 6, those of pixels at halves.
    np.testing.assert_allclose(found[3], [0, 0, 1, 3, 5, 7, 8, 8], atol=1e-5)


@pytest.mark.backend_free
@pytest.mark.parametrize("ending", [".png", ".svg", ".pdf"])
def test_figures_are_saved(tmp_path, ending):
    pytest.importorskip("matplotlib")
    explanation([0, 1, 0, 0]).save(tmp_path / f"figure{ending}")
    begin = {".png": b"\x89PNG", ".svg": b"<?xml", ".pdf": b"%PDF"}[ending]
    assert (tmp_path / f"figure{ending}").read_bytes().startswith(begin)


@pytest.mark.backend_free
def test_other_files_are_refused_and_not_written(tmp_path):
    pytest.importorskip("matplotlib")
    with pytest.raises(InputError, match=r"\.png, \.svg, \.pdf. Received: .*figure.docx"):
        explanation([0, 1, 0, 0]).save(tmp_path / "figure.docx")
    with pytest.raises(InputError, match="Received: method='rollout'"):
        explanation([0, 1, 0, 0]).plot_heads()
    assert not list(tmp_path.iterdir())
