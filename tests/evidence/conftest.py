import shutil

import pytest

from lsmha_keras.data.open_dataset import open_dataset_for_model
from lsmha_keras.training.build_model import build_model
from lsmha_keras.training.evaluate import class_report
from lsmha_keras.training.recipe import load_recipe
from lsmha_keras.training.run_output import write_preset
from tests.training.tiny import recipe_dict, write_dataset


@pytest.fixture(scope="package")
def model_and_run(tmp_path_factory):
    """A model that was not trained, and a directory as if it had been, with its data beside."""
    root = tmp_path_factory.mktemp("verified")
    recipe = load_recipe(recipe_dict(write_dataset(root / "tiny.npz")))
    test_set = open_dataset_for_model(recipe.data.name, "test", None, None, None)
    model = build_model(recipe, test_set)
    run = root / "run"
    run.mkdir()
    (run / "recipe.toml").write_text(recipe.to_toml())
    history = [{"epoch": 1, "loss": 1.0}]
    write_preset(run / "preset", model, recipe, class_report(model, test_set), history, 1.5)
    return model, run


@pytest.fixture
def preset(model_and_run, tmp_path):
    """A copy of the preset, to be damaged."""
    return shutil.copytree(model_and_run[1] / "preset", tmp_path / "preset")
