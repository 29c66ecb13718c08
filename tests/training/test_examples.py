"""The examples in the docstrings run."""

import ast
import doctest
import importlib
import inspect
import pkgutil
import re
import shutil

import keras
import numpy as np
import pytest

import lsmha_keras.training
from lsmha_keras.data.open_dataset import open_dataset
from lsmha_keras.training.build_model import build_model, compile_model
from lsmha_keras.training.devices import recipe_runtime
from lsmha_keras.training.evaluate import class_report, evaluate
from lsmha_keras.training.recipe_data import open_recipe_data
from lsmha_keras.training.train import train
from tests.training.tiny import CLASSES, SIDE

# Each needs its framework; the example of `device_loop_class` runs the one that is there.
_OF_ONE_FRAMEWORK = ("jax_device_loop", "torch_device_loop")
MODULES = [
    module.name
    for module in pkgutil.iter_modules(lsmha_keras.training.__path__, "lsmha_keras.training.")
    if not module.name.endswith(_OF_ONE_FRAMEWORK)
] + ["lsmha_keras.data.labelled", "lsmha_keras.data.open_dataset"]


def blocks():
    for name in MODULES:
        source = inspect.getsource(importlib.import_module(name))
        for node in ast.walk(ast.parse(source)):
            if isinstance(node, (ast.FunctionDef, ast.ClassDef)):
                text = ast.get_docstring(node) or ""
                for block in re.findall(r"```python\n(.*?)```", text, re.DOTALL):
                    yield pytest.param(name, block, id=node.name)


BLOCKS = list(blocks())


def make_model():
    model = keras.Sequential(
        [keras.Input((SIDE, SIDE, 3)), keras.layers.Flatten(), keras.layers.Dense(CLASSES)]
    )
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.SGD(1e-6, use_ema=True), loss)
    model.optimizer.build(model.trainable_variables)
    return model


@pytest.fixture
def surroundings(result, data, tmp_path, monkeypatch):
    """A folder with a recipe, its data and its run, and the other files in the examples."""
    shutil.copytree(result.output_dir, tmp_path / "runs" / "mine")
    shutil.copy(result.output_dir / "recipe.toml", tmp_path / "recipe.toml")
    shutil.copy(data, tmp_path / "pictures.npz")
    shutil.copy(result.output_dir / "checkpoints" / "last.npz", tmp_path)
    monkeypatch.chdir(tmp_path)
    sources = open_recipe_data(result.recipe)
    images = np.zeros((8, SIDE, SIDE, 3), "uint8")
    labels = np.arange(8) % CLASSES
    return {
        "keras": keras,
        "np": np,
        "lsmha_keras": lsmha_keras,
        "images": images,
        "labels": labels,
        "test_images": images,
        "test_labels": labels,
        "model": make_model(),
        "make_model": make_model,
        "recipe": result.recipe,
        "source": sources["train"],
        "sources": sources,
        "output_dir": tmp_path / "runs" / "new",
        "build_model": build_model,
        "compile_model": compile_model,
        "train": train,
        "evaluate": evaluate,
        "recipe_runtime": recipe_runtime,
        "result": result,
        "figures": {
            k: result.results[k] for k in ("loss", "accuracy", "top5_accuracy", "num_images")
        },
        "history": result.history,
        "report": class_report(result.model, sources["test"]),
        "test_set": open_dataset(data, "test"),
    }


@pytest.mark.parametrize(("module", "block"), BLOCKS)
def test_block(module, block, surroundings):
    on_device = any(word in block for word in ("fit_on_device(", "device_loop_class("))
    if on_device and keras.backend.backend() == "tensorflow":
        pytest.skip("tensorflow has no device loop")
    exec(block, {**vars(importlib.import_module(module)), **surroundings})


@pytest.mark.parametrize("name", MODULES)
def test_doctest(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert doctest.testmod(importlib.import_module(name)).failed == 0


def test_there_are_examples():
    assert len(BLOCKS) >= 15
