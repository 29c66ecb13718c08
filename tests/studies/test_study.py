import tomllib

import pytest

from lsmha_keras.presets import tuning_dir
from lsmha_keras.studies.study import Study, load_study
from tests.studies.tiny import study_dict

pytestmark = pytest.mark.backend_free

STUDIES = sorted(path.stem for path in (tuning_dir() / "studies").glob("*.toml"))


def study(**sections):
    return Study.from_dict(study_dict("pictures.npz", **sections))


@pytest.mark.parametrize("name", STUDIES)
def test_shipped_studies(name):
    found = load_study(name)
    assert found.name == name
    again = Study.from_dict(tomllib.loads(found.to_toml()))
    assert found.differences(again) == {}


def test_recipe_of_a_trial():
    space = {
        "num_heads": [2, 4],
        "learning_rate": [0.1, 0.2],
        "augmentation_strength": [0.0, 1.0],
        "loss.label_smoothing": [0.0, 0.3],
        "model.overrides.mlp_dim": [8, 16],
    }
    values = {
        "num_heads": 4,
        "learning_rate": 0.2,
        "augmentation_strength": 0.0,
        "loss.label_smoothing": 0.3,
        "model.overrides.mlp_dim": 8,
    }
    base = study(space=space)
    recipe = base.trial_recipe(values, seed=7, epochs=1, name="tiny_0")
    assert base.recipe.differences(recipe) == {
        "name": ("recipe", "tiny_0"),
        "model.overrides.mlp_dim": (16, 8),
        "augmentation.pad_crop": (1, None),
        "augmentation.flip": (False, None),
        "schedule.epochs": (2, 1),
        "schedule.warmup_epochs": (1.0, 0.5),
        "optimizer.learning_rate": (0.02, 0.2),
        "loss.label_smoothing": (0.1, 0.3),
        "runtime.seed": (3, 7),
    }


def test_recipe_from_a_base():
    sections = {"base": "cct_2_3x2_h16_cifar100", "data": {"validation_split": "train[90%:]"}}
    found = Study.from_dict(
        {"recipe": sections, "space": {"num_heads": [2, 4]}, "name": "x"}
    ).recipe
    assert found.data.validation_split == "train[90%:]"
    assert found.schedule.epochs == 18


@pytest.mark.parametrize(
    "sections, message",
    [
        ({"tuner": {"name": "Bayesian"}}, "BayesianOptimization"),
        ({"tuner": {"objective": "accuracy"}}, "val_accuracy"),
        ({"tuner": {"max_trials": 0}}, "tuner.max_trials=0"),
        ({"budget": {"latency": 3}}, "latency_ms"),
        ({"budget": {"latency_ms": -1}}, "latency_ms=-1"),
        ({"tuner": {"objective": "shp_snr"}}, "enabled = true"),
        ({"shp": {"patience": 2}}, "enabled = true"),
        ({"space": {"loss.smoothing": [0.0, 0.1]}}, "label_smoothing"),
        ({"space": {"los.label_smoothing": [0.0, 0.1]}}, "loss"),
        ({"space": {"num_heads": [3, 4]}}, "hidden_dim=16"),
        ({"space": {"learning_rate": [0.1, -1.0]}}, "learning_rate=-1.0"),
        ({"space": {"loss.label_smoothing": {"min": 0.0, "max": 3.0}}}, "label_smoothing=3.0"),
        ({"space": {"augmentation_strength": [0.5, 2.0]}}, "0 .. 1"),
        ({"spase": {}}, "space"),
        ({"name": "a/b"}, "slashes"),
        ({"recipe": {"data": {"name": "digits"}}}, "validation_split"),
        ({"space": 3}, r"\[space\]"),
    ],
)
def test_bad_studies(sections, message):
    with pytest.raises(ValueError, match=message):
        study(**sections)


def test_weights_of_another_architecture_are_refused():
    recipe = {
        "base": "cct_2_3x2_h16_cifar100",
        "model": {"preset": "cct_2_3x2_h16_cifar100"},
        "data": {"validation_split": "train[90%:]"},
    }
    with pytest.raises(ValueError, match="load_weights = false"):
        Study.from_dict({"recipe": recipe, "space": {"num_heads": [2, 4]}})


def test_files(tmp_path):
    with pytest.raises(ValueError, match="digits_heads.*Received: study='digit_heads'"):
        load_study("digit_heads")
    broken = tmp_path / "broken.toml"
    broken.write_text("[space\n")
    with pytest.raises(ValueError, match="broken.toml"):
        load_study(broken)
