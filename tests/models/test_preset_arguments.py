"""What `from_preset` makes of its arguments, every pair of two of them."""

import itertools
import types

import numpy as np
import pytest

import lsmha_keras as lsmha
from lsmha_keras.studies.search_space import SearchSpace
from lsmha_keras.studies.study import Study
from lsmha_keras.training.build_model import build_model
from lsmha_keras.training.recipe import Recipe
from tests.checks import random_images, random_tokens, to_numpy
from tests.models.test_cct_image_classifier import small_classifier

SMALL = {"hidden_dim": 16, "mlp_dim": 16, "tokenizer_filters": 8}
FREE = {"attention_dropout": 0.25, "stochastic_depth_rate": 0.3}
STRUCTURE = {"num_heads": 8, "mlp_dim": 12}
CHOICES = {
    "load_weights": (True, False),
    "overrides": ({}, FREE, STRUCTURE),
    "num_classes": (None, 5, 3),
    "image_shape": (None, (24, 20, 3)),
    "dtype": (None, "mixed_bfloat16"),
}


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    directory = tmp_path_factory.mktemp("preset")
    model = small_classifier(class_names=list("abcde"))
    model.save_to_preset(directory)
    return model, directory


def pairwise(choices):
    """Yields dicts in which every pair of values of two arguments occurs at least once."""
    names = list(choices)
    rows = [dict(zip(names, row, strict=True)) for row in itertools.product(*choices.values())]
    pairs = [
        {(a, repr(row[a]), b, repr(row[b])) for a, b in itertools.combinations(names, 2)}
        for row in rows
    ]
    missing = set().union(*pairs)
    while missing:
        best = max(range(len(rows)), key=lambda i: len(pairs[i] & missing))
        missing -= pairs[best]
        yield rows[best]


def expected_config(base, row):
    config = {**base, **row["overrides"]}
    if row["image_shape"]:
        config["image_shape"] = row["image_shape"]
    return config


@pytest.mark.parametrize("source", ["trained", "architecture"])
@pytest.mark.parametrize("row", list(pairwise(CHOICES)), ids=str)
def test_every_argument_counts(trained, source, row):
    model, directory = trained
    arguments = {k: v for k, v in row.items() if k != "overrides" and v is not None}
    arguments |= row["overrides"]
    if source == "architecture":
        name, base = "cct_2_3x2_h4_c1", {**model.backbone.get_config()}
        arguments = {**SMALL, "image_shape": (16, 16, 3), **arguments}
        if row["num_classes"] is None:
            with pytest.raises(ValueError, match="give `num_classes`"):
                lsmha.CCTImageClassifier.from_preset(name, **arguments)
            return
    else:
        name, base = directory, model.backbone.get_config()
        if row["load_weights"] and row["overrides"] == STRUCTURE:
            with pytest.raises(ValueError, match="Received: num_heads=8, mlp_dim=12"):
                lsmha.CCTImageClassifier.from_preset(name, **arguments)
            return
    loaded = lsmha.CCTImageClassifier.from_preset(name, **arguments)
    config, wanted = loaded.backbone.get_config(), expected_config(base, row)
    for key in set(wanted) - {"name", "dtype", "attention_dropout", "stochastic_depth_rate"}:
        assert config[key] == wanted[key] or list(config[key]) == list(wanted[key]), key
    for key, value in row["overrides"].items():
        assert config[key] == value
    policy = row["dtype"] or "float32"
    assert loaded.backbone.dtype_policy.name == policy
    assert loaded.backbone.blocks[1].attention.dtype_policy.name == policy
    assert loaded.num_classes == (row["num_classes"] or 5)
    kept = source == "trained" and row["num_classes"] is None
    assert loaded.class_names == (list("abcde") if kept else None)
    assert loaded.preprocessor.image_converter.image_size == config["image_shape"][:2]
    same = source == "trained" and row["load_weights"]
    weight = [to_numpy(m.backbone.blocks[1].mlp_hidden.kernel) for m in (model, loaded)]
    if weight[0].shape == weight[1].shape:
        assert np.array_equal(*weight) == same
    head = [to_numpy(m.output_dense.kernel) for m in (model, loaded)]
    if head[0].shape == head[1].shape:
        assert np.array_equal(*head) == (same and kept)
    images = random_images(2, *config["image_shape"])
    assert loaded.predict(images, verbose=0).shape == (2, loaded.num_classes)


def test_heads_of_another_number_compute_otherwise(trained):
    """Heads of another number have weights of the same shapes, so only the outputs tell."""
    model, directory = trained
    other = lsmha.CCTImageClassifier.from_preset(directory, load_weights=False, num_heads=8)
    four, eight = small_classifier(), small_classifier(num_heads=8)
    rng = np.random.default_rng(0)
    # Of initial weights the scores are so small that all heads attend alike.
    weights = [rng.normal(size=w.shape) for w in model.backbone.trainable_weights]
    for classifier in (other, eight, four):
        for variable, value in zip(classifier.backbone.trainable_weights, weights, strict=True):
            variable.assign(value)
    images = random_tokens(2, 16, 16, 3)
    tokens, same, before = (to_numpy(m.backbone(images)) for m in (other, eight, four))
    np.testing.assert_allclose(tokens, same, atol=1e-5)
    assert np.abs(tokens - before).max() > 0.1


@pytest.mark.parametrize("same", [{"num_heads": [4]}, {"head_dim": 4}, {"hidden_dim": 16}])
def test_the_same_structure_written_otherwise_keeps_the_weights(trained, same):
    model, directory = trained
    images = random_images(2, 16, 16, 3)
    expected = model.predict(images, verbose=0)
    loaded = lsmha.CCTImageClassifier.from_preset(directory, **same)
    np.testing.assert_allclose(loaded.predict(images, verbose=0), expected, atol=1e-6)
    backbone = lsmha.CCTBackbone.from_preset(directory, **same)
    old, new = (to_numpy(b.blocks[1].attention.qkv.kernel) for b in (model.backbone, backbone))
    np.testing.assert_array_equal(old, new)


def test_backbones_follow_the_same_rule(trained):
    _, directory = trained
    with pytest.raises(ValueError, match=r"trained with num_heads=4 .* Received: num_heads=8"):
        lsmha.CCTBackbone.from_preset(directory, num_heads=8)
    with pytest.raises(ValueError, match=r"Received: image_shape=\(16, 16, 1\)"):
        lsmha.CCTBackbone.from_preset(directory, image_shape=(16, 16, 1))
    assert lsmha.CCTBackbone.from_preset(directory, load_weights=False, num_heads=8).num_heads == 8
    assert lsmha.CCTBackbone.from_preset(directory, dropout_rate=0.5).dropout_rate == 0.5


def test_other_channels_get_a_converter_of_their_own(trained):
    gray = lsmha.CCTImageClassifier.from_preset(
        trained[1], load_weights=False, image_shape=(16, 16, 1)
    )
    assert gray.predict(random_images(2, 16, 16, 1), verbose=0).shape == (2, 5)


def test_unknown_arguments_are_refused_everywhere(trained):
    import keras_hub

    model, directory = trained
    for source in (directory, "cct_2_3x2"):
        with pytest.raises(ValueError, match=r"nearest: num_heads.*Received: nmu_heads"):
            lsmha.CCTImageClassifier.from_preset(source, num_classes=5, nmu_heads=3)
        with pytest.raises(ValueError, match=r"nearest: num_heads.*Received: nmu_heads"):
            lsmha.CCTBackbone.from_preset(source, nmu_heads=3)
    with pytest.raises(ValueError, match="nearest: num_heads"):
        lsmha.CCTBackbone(nmu_heads=3)
    with pytest.raises(ValueError, match="nearest: activation"):
        lsmha.CCTImageClassifier(model.backbone, 5, activaton="softmax")
    with pytest.raises(ValueError, match="nearest: mode"):
        lsmha.SoftCommittee([model], moed="vote")
    with pytest.raises(ValueError, match="give it to `CCTBackbone`"):
        keras_hub.models.ImageClassifier.from_preset(str(directory), num_heads=8)


def recipe(directory, **model):
    return Recipe.from_dict(
        {
            "model": {"preset": str(directory), **model},
            "data": {"name": "digits", "validation_split": "train[90%:]"},
            "schedule": {"epochs": 1},
        }
    )


def test_overrides_of_a_recipe_act_on_a_trained_preset(trained):
    _, directory = trained
    source = types.SimpleNamespace(class_names=["x", "y"])
    model = build_model(recipe(directory, overrides=FREE), source)
    assert {key: getattr(model.backbone, key) for key in FREE} == FREE
    model = build_model(recipe(directory, overrides=STRUCTURE, load_weights=False), source)
    assert {key: getattr(model.backbone, key) for key in STRUCTURE} == STRUCTURE
    assert model.class_names == ["x", "y"]
    with pytest.raises(ValueError, match=r"`load_weights = false` under \[model\]"):
        build_model(recipe(directory, overrides=STRUCTURE), source)


def test_studies_of_a_trained_preset_train_what_they_say(trained):
    _, directory = trained
    space = SearchSpace.from_dict({"num_heads": [2, 8]})
    study = Study("s", recipe(directory, load_weights=False), space)
    source = types.SimpleNamespace(class_names=["x", "y"])
    heads = [
        build_model(study.trial_recipe({"num_heads": n}), source).backbone.num_heads for n in (2, 8)
    ]
    assert heads == [2, 8]
    space = SearchSpace.from_dict({"model.overrides.mlp_dim": [8, 16]})
    with pytest.raises(ValueError, match="trained with mlp_dim=16 .* Received: mlp_dim=8"):
        Study("s", recipe(directory), space)
