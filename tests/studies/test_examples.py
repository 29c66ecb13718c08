"""The examples in the docstrings run, in the folder of a finished study."""

import ast
import contextlib
import doctest
import importlib
import importlib.util
import pathlib
import pkgutil
import re
import types

import numpy as np
import pytest

import lsmha_keras
import lsmha_keras.studies
from tests.studies.tiny import study_dict
from tests.training.tiny import CLASSES, SIDE, write_dataset

keras_tuner = pytest.importorskip("keras_tuner")

pytestmark = pytest.mark.backend_free

MODULES = [
    module.name
    for module in pkgutil.iter_modules(lsmha_keras.studies.__path__, "lsmha_keras.studies.")
]
# What needs a cluster, or a search that runs; tests of their own do that.
_ELSEWHERE = {"RayCluster", "RaySearch", "search", "StudyTuner"}


def blocks():
    for name in MODULES:
        source = pathlib.Path(importlib.util.find_spec(name).origin).read_text(encoding="utf-8")
        for node in ast.walk(ast.parse(source)):
            if isinstance(node, (ast.FunctionDef, ast.ClassDef)) and node.name not in _ELSEWHERE:
                text = ast.get_docstring(node) or ""
                for block in re.findall(r"```python\n(.*?)```", text, re.DOTALL):
                    yield pytest.param(name, block, id=node.name)


BLOCKS = list(blocks())


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    from lsmha_keras.studies.search import search

    folder = tmp_path_factory.mktemp("study")
    study = study_dict(
        write_dataset(folder / "pictures.npz"),
        shp={"enabled": True, "max_images": 16},
        space={"num_heads": [1, 2, 4, 8]},
        tuner={"max_trials": 4},
    )
    study["recipe"]["schedule"] = {"epochs": 1}
    return search(study, folder / "runs" / "heads", verbose=0)


@pytest.mark.parametrize("name", MODULES)
def test_doctests(name):
    assert doctest.testmod(importlib.import_module(name)).failed == 0


@pytest.mark.parametrize("name, code", BLOCKS)
def test_block(name, code, finished, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    # Studies of minutes stand in the examples; here the finished one answers.
    monkeypatch.setattr(lsmha_keras, "search", lambda *args, **kwargs: finished, raising=False)
    module = importlib.import_module(name)
    recipe = finished.recipe()
    oracle = keras_tuner.oracles.RandomSearchOracle("val_accuracy", 1)
    sources = importlib.import_module("lsmha_keras.training.recipe_data").open_recipe_data(recipe)
    images = np.zeros((20, SIDE, SIDE, 3), "uint8")
    names = {
        "keras_tuner": keras_tuner,
        "lsmha_keras": lsmha_keras,
        "result": finished,
        "study": finished.study,
        "recipe": recipe,
        "directory": finished.directory,
        "sources": sources,
        "tuner": types.SimpleNamespace(oracle=oracle),
        "images": images,
        "labels": np.arange(20) % CLASSES,
        "pathlib": pathlib,
    }
    if "model" in code and "measure_cost" in code:
        from lsmha_keras.training.build_model import build_model

        names["model"] = build_model(recipe, sources["train"])
    if "read_table" in code:
        (tmp_path / "tuning" / "results").mkdir(parents=True)
        finished.write(tmp_path / "tuning" / "results" / "cifar100_heads.csv")
    with contextlib.chdir(tmp_path):
        exec(code, {**vars(module), **names})
