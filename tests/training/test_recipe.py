import math
import tomllib

import pytest

from lsmha_keras.presets import zoo_dir
from lsmha_keras.training.recipe import Recipe, load_recipe
from lsmha_keras.training.settings import to_toml_text

pytestmark = pytest.mark.backend_free

SHIPPED = sorted(path.stem for path in (zoo_dir() / "recipes").glob("*.toml"))
MINIMAL = {
    "model": {"preset": "cct_2_3x2"},
    "data": {"name": "digits"},
    "schedule": {"epochs": 5},
}


def with_value(path, value):
    section, key = path.split(".")
    return {**MINIMAL, section: {**MINIMAL.get(section, {}), key: value}}


@pytest.mark.parametrize("name", SHIPPED)
def test_shipped_recipe(name, tmp_path):
    recipe = load_recipe(name)
    assert recipe.name == name
    (tmp_path / "copy.toml").write_text(recipe.to_toml(), encoding="utf-8")
    assert Recipe.from_toml(tmp_path / "copy.toml") == recipe
    # A recipe's leading comment is its report.
    comment = (zoo_dir() / "recipes" / f"{name}.toml").read_text().split("\n\n")[0]
    for word in ("hardware", "expected", "lsmha train", name):
        assert word in comment


@pytest.mark.parametrize("name", SHIPPED)
def test_shipped_augmentation_is_understood(name):
    pytest.importorskip("keras")
    from lsmha_keras.data.augmentation_policy import AugmentationPolicy

    recipe = load_recipe(name)
    if recipe.model.preset.startswith(("text_", "series_")):
        assert not recipe.augmentation  # which is for images
        return
    policy = AugmentationPolicy.from_config(recipe.augmentation, (32, 32, 3), 100)
    assert policy.layers
    assert policy.mixes_labels == ("mixup" in recipe.augmentation)


def test_reference_recipe_is_the_papers():
    recipe = load_recipe("cct_7_3x1_cifar100_300_epochs")
    assert recipe.schedule.total_epochs == 310
    assert (recipe.optimizer.learning_rate, recipe.optimizer.weight_decay) == (6e-4, 0.06)
    assert recipe.augmentation["random_resized_crop"] == [0.8, 1.0]


@pytest.mark.parametrize(
    "value",
    [
        'a "quoted" \\ text',
        "tab\tline\nbell\x07 delete\x7f",
        "Grüße, 日本, 🙂",
        "",
        1e-05,
        1.0,
        -0.0,
        2**40,
        math.inf,
        True,
        [1, [2.5, "x"], {"deep": [False]}],
        {"a b": 1, "": {"c.d": 2}, "empty": {}},
    ],
)
def test_toml_text_is_read_back(value):
    table = {"plain": value, "section": {"key": value, "other key": [value]}}
    back = tomllib.loads(to_toml_text(table))
    assert back == table
    types = {key: type(found) for key, found in back["section"].items()}
    assert types == {"key": type(value), "other key": list}


def test_toml_has_no_null():
    assert tomllib.loads(to_toml_text({"a": None, "s": {"b": None, "c": {"d": None}}})) == {
        "s": {"c": {}}
    }
    with pytest.raises(TypeError, match="set"):
        to_toml_text({"a": {1}})


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"optimiser": {}}, r"nearest: optimizer\). Received: optimiser"),
        ({"optimizer": {"learning_rat": 1}}, r"nearest: learning_rate\). Received: optimizer.lea"),
        ({"schedule": {"epoch": 1}}, r"nearest: epochs\). Received: schedule.epoch"),
        ({"schedule": {}}, r"`schedule.epochs` is required"),
        ({"schedule": 5}, r"\[schedule\] must be a table. Received: schedule=5"),
        ({"augmentation": True}, r"\[augmentation\] must be a table"),
        ({"name": "a/b"}, r"without slashes. Received: name='a/b'"),
    ],
)
def test_wrong_structure(values, message):
    with pytest.raises(ValueError, match=message):
        Recipe.from_dict({**MINIMAL, **values})


def test_missing_section():
    with pytest.raises(ValueError, match=r"needs a section \[data\]"):
        Recipe.from_dict({"model": {"preset": "cct_2_3x2"}})


@pytest.mark.parametrize(
    ("key", "value", "expected"),
    [
        ("schedule.epochs", 0, ">= 1"),
        ("schedule.epochs", 2.5, "an integer"),
        ("schedule.epochs", True, "an integer"),
        ("schedule.warmup_epochs", 5, "must be below it"),
        ("schedule.decay", "cosin", "nearest: cosine"),
        ("schedule.cooldown_epochs", -1, ">= 0"),
        ("data.batch_size", "128", "an integer, >= 1"),
        ("data.train_split", 3, "a text"),
        ("data.image_size", [32, 32, 3], "a positive integer or two"),
        ("model.image_shape", [32, 32], "three positive integers"),
        ("model.overrides", [], "a table"),
        ("model.load_weights", "yes", "true or false"),
        ("optimizer.learning_rate", 0, "> 0"),
        ("optimizer.learning_rate", math.nan, "a number"),
        ("optimizer.learning_rate", "fast", "a number"),
        ("optimizer.weight_decay", -0.1, ">= 0"),
        ("loss.label_smoothing", 1.0, "< 1"),
        ("ema.momentum", 1, "< 1"),
        ("runtime.precision", "bf16", "mixed_bfloat16"),
        ("runtime.devices", 0, ">= 1"),
        ("runtime.seed", -1, ">= 0"),
        ("runtime.jit_compile", "yes", "auto"),
    ],
)
def test_wrong_value_names_the_key(key, value, expected):
    with pytest.raises(ValueError) as error:
        Recipe.from_dict(with_value(key, value))
    assert f"`{key}`" in str(error.value)
    assert expected in str(error.value)
    assert f"Received: {key}=" in str(error.value)


def test_integers_are_taken_for_numbers():
    recipe = Recipe.from_dict(with_value("optimizer.learning_rate", 1))
    assert recipe.optimizer.learning_rate == 1.0
    assert isinstance(recipe.optimizer.learning_rate, float)


def test_file_errors_name_the_file(tmp_path):
    path = tmp_path / "bad.toml"
    path.write_text("[model\n")
    with pytest.raises(ValueError, match="bad.toml"):
        load_recipe(path)
    path.write_bytes(b"\xff\xfe")
    with pytest.raises(ValueError, match="bad.toml"):
        load_recipe(path)


def test_a_recipe_is_named_after_its_file(tmp_path):
    path = tmp_path / "mine.toml"
    path.write_text(to_toml_text(MINIMAL))
    assert load_recipe(str(path)).name == "mine"
    assert load_recipe(MINIMAL).name == "recipe"


def test_unknown_recipe_names_the_nearest():
    with pytest.raises(ValueError, match=r"nearest: cct_2_3x2_h16_cifar100\). Received: recipe="):
        load_recipe("cct_2_3x2_h16_cifar10")


def test_differences():
    first = Recipe.from_dict({**MINIMAL, "augmentation": {"mixup": 0.8}})
    second = Recipe.from_dict({**MINIMAL, "optimizer": {"arguments": {"beta_1": 0.8}}})
    assert first.differences(first) == {}
    assert first.differences(second) == {
        "augmentation.mixup": (0.8, None),
        "optimizer.arguments.beta_1": (None, 0.8),
    }
