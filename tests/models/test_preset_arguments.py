"""The arguments of `from_preset`, in all pairwise combinations."""

import itertools
import re
import types

import keras
import numpy as np
import pytest

import lsmha_keras as lsmha
from lsmha_keras.studies.search_space import SearchSpace
from lsmha_keras.studies.study import Study
from lsmha_keras.training.build_model import build_model, cast_to_float32
from lsmha_keras.training.evaluate import class_report
from lsmha_keras.training.recipe import Recipe
from lsmha_keras.training.run_output import write_preset
from tests.checks import random_images, random_tokens, to_numpy
from tests.models.test_cct_image_classifier import small_classifier
from tests.training.tiny import recipe_dict

SMALL = {"hidden_dim": 16, "mlp_dim": 16, "tokenizer_filters": 8, "image_shape": (16, 16, 3)}
FREE = {"attention_dropout": 0.25, "stochastic_depth_rate": 0.3}
STRUCTURE = {"num_heads": 8, "mlp_dim": 12}
HEAD = {"activation": "softmax", "dropout": 0.25, "head_dtype": "float32", "name": "mine"}
HEAD |= {"trainable": False}
CHOICES = {
    "source": ("shipped", "directory", "run", "architecture"),
    "load_weights": (True, False),
    "overrides": ({}, FREE, STRUCTURE, HEAD),
    "num_classes": (None, "as before", 3),
    "class_names": (None, "names"),
    "image_shape": (None, (24, 20, 3), (16, 16, 1)),
    "dtype": (None, "mixed_bfloat16", "float16"),
}
OF_THE_HEAD = ("num_classes", "class_names", "activation", "dropout", "head_dtype", "name")


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    directory = tmp_path_factory.mktemp("preset")
    model = small_classifier(class_names=list("abcde"))
    model.save_to_preset(directory)
    return model, directory


@pytest.fixture(scope="module")
def sources(trained, tmp_path_factory):
    """The source for `from_preset`, and its model, or None for an architecture."""
    run = small_classifier(num_classes=4, class_names=list("abcd"), dtype="mixed_bfloat16")
    run = cast_to_float32(run)
    report = class_report(run, (random_images(8, 16, 16, 3), np.arange(8) % 4), batch_size=8)
    written = tmp_path_factory.mktemp("run") / "preset"
    history = [{"epoch": 1, "loss": 1.4}]
    write_preset(written, run, Recipe.from_dict(recipe_dict("digits")), report, history, 1.0)
    shipped = lsmha.CCTImageClassifier.from_preset("lsmha-small")
    return {
        "shipped": ("lsmha-small", shipped),
        "directory": (trained[1], trained[0]),
        "run": (written, run),
        "architecture": ("cct_2_3x2_h4_c1", None),
    }


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


def arguments_of(row, before):
    """Returns the arguments of a row, and the expected number of classes."""
    arguments = {**({} if before else SMALL), "load_weights": row["load_weights"]}
    arguments |= {k: row[k] for k in ("image_shape", "dtype") if row[k]} | row["overrides"]
    classes = before.num_classes if before else 5
    if row["num_classes"]:
        classes = classes if row["num_classes"] == "as before" else row["num_classes"]
        arguments["num_classes"] = classes
    if row["class_names"]:
        arguments["class_names"] = [f"class {i}" for i in range(classes)]
    return arguments, classes


def refusal(row, before):
    """Returns a part of the error that a row must raise, or None if it is valid."""
    if before is None:
        return None if row["num_classes"] else "give `num_classes`"
    received = []
    if row["overrides"] is STRUCTURE:
        received.append("num_heads=8, mlp_dim=12")
    if row["image_shape"] and row["image_shape"][2] != before.image_shape[2]:
        received.append(re.escape(f"image_shape={row['image_shape']}"))
    return f"Received: {', '.join(received)}" if received and row["load_weights"] else None


def check_config(model, arguments, before):
    """The configs hold the arguments, and otherwise the preset's values."""
    head, inner = model.get_config(), model.backbone.get_config()
    for key, value in arguments.items():
        if key not in ("load_weights", "dtype", "trainable"):
            found = (head if key in OF_THE_HEAD else inner)[key]
            assert (tuple(found) if key == "image_shape" else found) == value, key
    assert model.trainable == arguments.get("trainable", True)
    if before is None:
        assert model.class_names == arguments.get("class_names")
        return
    for found, old in (head, before.get_config()), (inner, before.backbone.get_config()):
        for key in set(old) - {"name", "dtype", "backbone", "preprocessor", *arguments}:
            if key != "class_names":
                assert found[key] == old[key], key
    if "class_names" not in arguments:
        assert model.class_names == (None if "num_classes" in arguments else before.class_names)


def check_dtypes(model, arguments):
    policy = keras.DTypePolicy(arguments.get("dtype", "float32"))
    head = keras.DTypePolicy(arguments.get("head_dtype", policy.name))
    assert model.pooler.dtype_policy.name == head.name  # whose scores stay in float32
    for layer in [*model.backbone._flatten_layers(), model.output_dense]:
        wanted = head if layer is model.output_dense else policy
        if layer.weights:
            assert layer.dtype_policy.name == wanted.name, layer.path
            dtypes = {keras.backend.standardize_dtype(w.dtype) for w in layer.weights}
            assert dtypes - {"uint32", "int64"} <= {wanted.variable_dtype}, layer.path
    converter = model.preprocessor.image_converter
    assert converter.dtype_policy.name == "float32"
    assert tuple(converter.image_size) == tuple(model.image_shape[:2])


def check_weights(model, arguments, before):
    """Weights are the preset's where they should be loaded, and new elsewhere."""
    loaded = arguments["load_weights"]
    # Rounded once to 11 bits where they are kept in half precision.
    tolerance = 2.0**-11 if arguments.get("dtype") == "float16" else 0.0
    for old, new in zip(before.backbone.weights, model.backbone.weights, strict=True):
        resized = "position" in old.path and "image_shape" in arguments
        if old.shape == new.shape and not resized and "seed" not in old.path:
            same = np.allclose(to_numpy(new), to_numpy(old), rtol=tolerance, atol=1e-7)
            # Random ones; biases and scales start alike.
            assert same if loaded else not same or "kernel" not in old.path, old.path
        else:
            assert not loaded or resized or "seed" in old.path, old.path
    old, new = (to_numpy(m.output_dense.kernel) for m in (before, model))
    if old.shape == new.shape:
        same = np.allclose(new, old, rtol=2.0**-11, atol=1e-7)
        assert same == (loaded and "num_classes" not in arguments)


@pytest.mark.parametrize("row", list(pairwise(CHOICES)), ids=str)
def test_every_argument_counts(sources, row):
    name, before = sources[row["source"]]
    arguments, classes = arguments_of(row, before)
    if message := refusal(row, before):
        with pytest.raises(ValueError, match=message):
            lsmha.CCTImageClassifier.from_preset(name, **arguments)
        return
    model = lsmha.CCTImageClassifier.from_preset(name, **arguments)
    check_config(model, arguments, before)
    check_dtypes(model, arguments)
    if before is not None:
        check_weights(model, arguments, before)
    assert model.input_shape == (None, *model.image_shape)
    assert model.output_shape == (None, classes)


def test_heads_of_another_number_compute_otherwise(trained):
    """Another number of heads has weights of the same shapes, so only the outputs differ."""
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
    with pytest.raises(ValueError, match="pass it to `CCTBackbone`"):
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


@keras.saving.register_keras_serializable("tests")
class Derived(lsmha.CCTImageClassifier):
    """A user's class."""

    backbone_cls = None  # else KerasHub's `ImageClassifier.from_preset` would find this class


class Unregistered(lsmha.CCTImageClassifier):
    """A class that is not registered with Keras."""

    backbone_cls = None


def test_a_subclass_loads_what_its_base_class_saved(trained, tmp_path):
    model, directory = trained
    images = random_images(2, 16, 16, 3)
    derived = Derived.from_preset(directory)
    assert type(derived) is Derived and derived.class_names == list("abcde")
    expected = model.predict(images, verbose=0)
    np.testing.assert_allclose(derived.predict(images, verbose=0), expected, atol=1e-6)
    kernels = [
        to_numpy(m.backbone.blocks[1].mlp_hidden.kernel)
        for m in (model, Derived.from_preset(directory, num_classes=2))
    ]
    np.testing.assert_array_equal(*kernels)
    derived.save_to_preset(tmp_path / "derived")
    assert type(lsmha.CCTImageClassifier.from_preset(tmp_path / "derived")) is Derived
    Unregistered(model.backbone, 5, preprocessor=model.preprocessor).save_to_preset(tmp_path / "u")
    assert type(Unregistered.from_preset(tmp_path / "u")) is Unregistered
    with pytest.raises(ValueError, match="register_keras_serializable.*Received: .*Unregistered"):
        lsmha.CCTImageClassifier.from_preset(tmp_path / "u")


@pytest.mark.parametrize("precision", ["mixed_bfloat16", "mixed_float16", "bfloat16"])
def test_what_was_saved_in_half_precision_loads_in_that_of_keras(trained, tmp_path, precision):
    import keras_hub

    half = lsmha.CCTImageClassifier.from_preset(trained[1], dtype=precision)
    half.save_to_preset(tmp_path)
    generic = keras_hub.models.ImageClassifier.from_preset(str(tmp_path))
    for model in (
        lsmha.load_classifier(tmp_path),
        lsmha.CCTBackbone.from_preset(tmp_path),
        generic,
        generic.backbone,
        generic.output_dense,
        generic.preprocessor.image_converter,
    ):
        assert model.dtype_policy.name == "float32"
    loaded = lsmha.CCTImageClassifier.from_preset(tmp_path, dtype=precision)
    assert loaded.backbone.dtype_policy.name == loaded.output_dense.dtype_policy.name == precision
    for old, new in zip(half.weights, loaded.weights, strict=True):
        if "seed" not in old.path:
            np.testing.assert_array_equal(to_numpy(new), to_numpy(old))


def test_backbones_become_classifiers_with_a_preprocessor_only(trained, tmp_path):
    model = trained[0]
    model.backbone.save_to_preset(tmp_path)
    for arguments, message in (
        ({}, "a backbone without a head: give `num_classes`"),
        ({"num_classes": 5}, "without preprocessing: pass `preprocessor`"),
    ):
        with pytest.raises(ValueError, match=message):
            lsmha.CCTImageClassifier.from_preset(tmp_path, **arguments)
    bare = lsmha.CCTImageClassifier.from_preset(tmp_path, num_classes=5, preprocessor=None)
    tokens = [to_numpy(m.backbone(random_tokens(2, 16, 16, 3))) for m in (model, bare)]
    np.testing.assert_allclose(*tokens, atol=1e-6)
    assert bare.preprocessor is None
    model.preprocessor.save_to_preset(str(tmp_path))
    own = lsmha.CCTImageClassifier.from_preset(tmp_path, num_classes=5, image_shape=(24, 20, 3))
    assert tuple(own.preprocessor.image_converter.image_size) == (24, 20)


def test_models_made_of_one_config_share_nothing(trained):
    model = trained[0]
    config = model.get_config()
    one, two = (type(model).from_config(config) for _ in range(2))
    assert not {id(w) for w in one.weights} & {id(w) for w in two.weights}
    assert config == model.get_config()


def test_a_preset_loads_without_compilation(trained):
    model = lsmha.CCTImageClassifier.from_preset(trained[1], compile=False)
    assert not model.compiled
