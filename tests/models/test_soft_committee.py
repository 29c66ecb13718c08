import shutil

import keras
import numpy as np
import pytest

import lsmha_keras as lsmha
from lsmha_keras.data.open_dataset import model_image_size
from lsmha_keras.models.cct_image_converter import CCTImageConverter
from tests.checks import random_images, to_numpy
from tests.models.test_cct_image_classifier import small_classifier

IMAGES = random_images(6, 20, 16, 3)
LABELS = np.arange(6) % 5


def softmax(logits):
    exponentials = np.exp(logits.astype("float64"))
    return exponentials / exponentials.sum(axis=-1, keepdims=True)


def run(model, images=IMAGES):
    """Calls a model on raw images, without compiling `predict`."""
    return to_numpy(model(model.preprocess_samples(images), training=False))


@pytest.fixture(scope="module")
def members():
    """Two classifiers of different structure, and one with another image size."""
    keras.utils.set_random_seed(0)
    made = [
        small_classifier(class_names=list("abcde")),
        small_classifier(num_heads=[2], head_dim=3, activation="softmax"),
        small_classifier(name="large"),
    ]
    for member in made:
        kernel, bias = member.output_dense.get_weights()
        member.output_dense.set_weights([40 * kernel, bias])  # else all answers are alike
    return made


@pytest.fixture(scope="module")
def logits(members):
    """`(members, images, classes)` logits, from each member alone."""
    outputs = [run(member) for member in members]
    outputs[1] = np.log(outputs[1])
    return np.stack(outputs)


@pytest.fixture(scope="module")
def committee(members):
    return lsmha.SoftCommittee(members)


@pytest.fixture(scope="module")
def saved(committee, tmp_path_factory):
    directory = tmp_path_factory.mktemp("presets") / "committee"
    committee.save_to_preset(directory)
    return directory


@pytest.fixture
def preprocessed(monkeypatch):
    """Shapes of what was preprocessed, in order."""
    shapes, call = [], CCTImageConverter.call

    def counted(self, inputs):
        shapes.append(tuple(inputs.shape))
        return call(self, inputs)

    monkeypatch.setattr(CCTImageConverter, "call", counted)
    return shapes


def test_soft_is_the_mean_probability(committee, logits):
    scores = committee.predict(IMAGES, verbose=0)
    expected = softmax(logits).mean(axis=0)
    assert np.ptp(expected, axis=0).max() > 0.01
    np.testing.assert_allclose(softmax(scores), expected, atol=1e-5)
    # Not only in proportion: these are logarithms of probabilities.
    np.testing.assert_allclose(np.exp(scores), expected, atol=1e-5)


def test_members_one_by_one(committee, logits):
    found = committee.predict_members(IMAGES, batch_size=4, verbose=0)
    np.testing.assert_allclose(softmax(found), softmax(logits.transpose(1, 0, 2)), atol=1e-5)


def test_it_is_a_model_like_others(committee, members):
    assert committee.output_shape == (None, 5)
    assert committee.num_classes == 5 and committee.class_names == list("abcde")
    assert committee.count_params() == sum(member.count_params() for member in members)
    assert committee.image_shape == (16, 16, 3) and model_image_size(committee) == (16, 16)
    lines = []
    committee.summary(print_fn=lambda line, **_: lines.append(line))
    assert all(f"member_{i}" in "".join(lines) for i in range(3))


def test_figures(committee, saved, logits):
    probabilities = softmax(logits).mean(axis=0)
    own = probabilities[np.arange(6), LABELS]
    figures = lsmha.evaluate(saved, (IMAGES, LABELS), batch_size=6)
    assert figures["loss"] == pytest.approx(-np.log(own).mean(), rel=1e-4)
    assert figures["accuracy"] == pytest.approx((probabilities.argmax(axis=1) == LABELS).mean())
    loss, accuracy = committee.evaluate(IMAGES, LABELS, verbose=0)
    assert (loss, accuracy) == pytest.approx((figures["loss"], figures["accuracy"]), rel=1e-4)


def test_images_are_preprocessed_once(committee, members, preprocessed):
    committee.preprocess_samples(IMAGES)
    assert preprocessed == [(6, 20, 16, 3)]
    members[0].predict(IMAGES, verbose=0)
    alone = len(preprocessed) - 1
    committee.predict(IMAGES, verbose=0)
    assert len(preprocessed) - 1 - alone == alone


def test_each_way_where_preprocessing_differs(members, logits, preprocessed):
    other = members[2]
    converter = other.preprocessor.image_converter
    scale = converter.scale
    converter.scale = [2 * value for value in scale]
    try:
        expected = np.array(logits)
        expected[2] = run(other)
        committee = lsmha.SoftCommittee(members)
        preprocessed.clear()
        assert set(committee.preprocess_samples(IMAGES)) == {"images_0", "images_1"}
        assert len(preprocessed) == 2
        for x in [IMAGES, *tf_datasets()]:
            scores = committee.predict(x, verbose=0)
            np.testing.assert_allclose(np.exp(scores), softmax(expected).mean(axis=0), atol=1e-5)
    finally:
        converter.scale = scale
    assert np.abs(expected[2] - logits[2]).max() > 0.01


def tf_datasets():
    try:
        import tensorflow as tf
    except ImportError:
        return []
    return [tf.data.Dataset.from_tensor_slices(IMAGES).batch(4)]


def test_a_committee_of_one_equals_its_member_in_every_mode(members, logits):
    twice = lsmha.SoftCommittee([members[0], members[0]], mode="vote")
    assert twice.count_params() == members[0].count_params()
    expected = 2 * np.eye(5)[logits[0].argmax(axis=1)] + softmax(logits[0])
    np.testing.assert_allclose(run(twice), expected, atol=1e-5)


def test_training_reaches_every_member():
    pair = [small_classifier(), small_classifier()]
    committee = lsmha.SoftCommittee(pair)
    before = [member.output_dense.get_weights()[1] for member in pair]
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    committee.compile(keras.optimizers.SGD(0.1), loss, run_eagerly=True)
    committee.fit(IMAGES, LABELS, verbose=0)
    for member, bias in zip(pair, before, strict=True):
        assert np.abs(member.output_dense.get_weights()[1] - bias).max() > 0


# Saving


def test_round_trip(saved, committee):
    expected = run(committee)
    loaded = lsmha.load_classifier(saved)
    assert isinstance(loaded, lsmha.SoftCommittee) and loaded.mode == "soft"
    assert loaded.class_names == list("abcde")
    np.testing.assert_allclose(run(loaded), expected, atol=1e-5)
    votes = run(lsmha.SoftCommittee.from_preset(saved, mode="vote"))
    np.testing.assert_allclose(votes % 1, np.exp(expected), atol=1e-5)
    assert model_image_size(saved) == (16, 16)


def test_keras_file(committee, tmp_path):
    committee.save(tmp_path / "committee.keras")
    loaded = keras.saving.load_model(tmp_path / "committee.keras", compile=False)
    expected = run(committee)
    np.testing.assert_allclose(run(loaded), expected, atol=1e-5)
    assert loaded.get_config() == committee.get_config()


def test_saving_again_leaves_nothing_of_the_larger_committee(saved, members, tmp_path):
    shutil.copytree(saved, tmp_path / "again")
    lsmha.SoftCommittee(members[:1], mode="vote").save_to_preset(tmp_path / "again")
    assert {path.name for path in (tmp_path / "again").iterdir()} == {
        "checksums.sha256",
        "committee.json",
        "member_0",
    }
    assert "member_1" not in (tmp_path / "again" / "checksums.sha256").read_text()


def test_a_damaged_member_is_named(saved, tmp_path):
    weights = shutil.copytree(saved, tmp_path / "copy") / "member_1" / "model.weights.h5"
    data = bytearray(weights.read_bytes())
    data[len(data) // 2] ^= 1
    weights.write_bytes(data)
    with pytest.raises(ValueError, match=r"member_1/model.weights.h5 was changed"):
        lsmha.load_classifier(tmp_path / "copy")
    weights.unlink()
    with pytest.raises(ValueError, match=r"member_1 is incomplete.*no file model.weights.h5"):
        lsmha.load_classifier(tmp_path / "copy")


@pytest.mark.parametrize(
    "text",
    [
        "{",
        "[]",
        '{"mode": "soft"}',
        '{"mode": "soft", "members": 3}',
        '{"mode": "soft", "members": ["../elsewhere"]}',
    ],
)
def test_a_damaged_list_of_members_is_named(text, tmp_path):
    (tmp_path / "committee.json").write_text(text)
    with pytest.raises(
        ValueError, match="JSON with `mode` and `members`.*Received: .*committee.json"
    ):
        lsmha.SoftCommittee.from_preset(tmp_path)


def test_the_wrong_class_says_which_is_right(saved, members):
    with pytest.raises(ValueError, match="holds a committee.*SoftCommittee.from_preset"):
        lsmha.CCTImageClassifier.from_preset(saved)
    with pytest.raises(ValueError, match="single classifier.*CCTImageClassifier.from_preset"):
        lsmha.SoftCommittee.from_preset(saved / "member_0")
    with pytest.raises(ValueError, match="single classifier; choose another"):
        lsmha.SoftCommittee(members).save_to_preset(saved / "member_0")
    with pytest.raises(ValueError, match="no `config.json` and no `committee.json`"):
        lsmha.load_classifier(saved.parent)


# Bad input


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"num_classes": 4}, r"the same number of classes. Received: num_classes=\[5, 4\]"),
        (
            {"class_names": list("abced")},
            "same order. Received: label 3 is 'd' .* 'e' for member 1",
        ),
        ({"preprocessor": None}, r"preprocessor or none of them.*\[True, False\]"),
        ({"activation": "sigmoid"}, "logits or a softmax. Received: activation='sigmoid' of me"),
        ({"image_shape": (16, 16, 1)}, r"as many channels. Received: channels=\[3, 1\]"),
    ],
)
def test_members_that_do_not_fit(changes, message, members):
    arguments = {"image_shape": (16, 16, 3), "num_classes": 5, **changes}
    other = lsmha.CCTImageClassifier.from_preset(
        "cct_2_3x2", hidden_dim=16, mlp_dim=16, tokenizer_filters=8, **arguments
    )
    with pytest.raises(ValueError, match=message):
        lsmha.SoftCommittee([members[0], other])


def test_members_of_other_sizes(members):
    """Two sizes are fine when both resize, and refused when one does not."""
    large = lsmha.CCTImageClassifier.from_preset(
        "cct_2_3x2",
        num_classes=5,
        image_shape=(24, 20, 3),
        hidden_dim=16,
        mlp_dim=16,
        tokenizer_filters=8,
    )
    committee = lsmha.SoftCommittee([members[0], large])
    assert committee.image_shape == (24, 20, 3)
    expected = [run(member) for member in (members[0], large)]
    scores = run(committee)
    np.testing.assert_allclose(np.exp(scores), softmax(np.stack(expected)).mean(axis=0), atol=1e-5)
    large.preprocessor.image_converter.image_size = None
    with pytest.raises(ValueError, match=r"must each resize.*\(16, 16, 3\), \(24, 20, 3\)"):
        lsmha.SoftCommittee([members[0], large])


@pytest.mark.parametrize("given", [[], "cct_2_3x2_h16_cifar100"])
def test_no_list_of_members(given):
    with pytest.raises(ValueError, match="list of at least one classifier"):
        lsmha.SoftCommittee(given)


def test_other_mistakes(members):
    with pytest.raises(ValueError, match="Received: mode='hard'"):
        lsmha.SoftCommittee(members, mode="hard")
    with pytest.raises(ValueError, match="Received: Sequential as member 1"):
        lsmha.SoftCommittee([members[0], keras.Sequential()])
    with pytest.raises(ValueError, match="nearest: cct_2_3x2"):
        lsmha.SoftCommittee(["cct_2_3x2_h16_cifar11"])
