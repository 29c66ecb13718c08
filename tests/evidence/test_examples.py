"""The examples in the docstrings run."""

import ast
import doctest
import importlib
import inspect
import pkgutil
import re
import shutil

import pytest

import lsmha_keras.evidence
import tools.evidence
from lsmha_keras.data.open_dataset import open_dataset
from lsmha_keras.evidence import runs, verify_preset
from lsmha_keras.presets import zoo_dir

pytestmark = pytest.mark.backend_free

MODULES = [
    importlib.import_module(module.name)
    for package in (lsmha_keras.evidence, tools.evidence)
    for module in pkgutil.iter_modules(package.__path__, f"{package.__name__}.")
]


def blocks():
    for module in MODULES:
        for node in ast.walk(ast.parse(inspect.getsource(module))):
            if isinstance(node, (ast.FunctionDef, ast.ClassDef)):
                text = ast.get_docstring(node) or ""
                for block in re.findall(r"```python\n(.*?)```", text, re.DOTALL):
                    yield pytest.param(module, block, id=node.name)


BLOCKS = list(blocks())


@pytest.mark.parametrize(("module", "block"), BLOCKS)
def test_block(module, block, model_and_run, tmp_path, monkeypatch):
    if "plot_" in block:
        pytest.importorskip("matplotlib", reason='figures need pip install "lsmha-keras[plots]"')
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(verify_preset, "_LATENCY_RUNS", 2)
    shutil.copytree(model_and_run[1], tmp_path / "runs" / "mine")
    (tmp_path / "runs" / "mine" / "checkpoints").mkdir()
    (tmp_path / "runs" / "mine" / "checkpoints" / "last.npz").touch()
    shutil.copytree(zoo_dir() / "results", tmp_path / "zoo" / "results")
    tiny = open_dataset(str(model_and_run[1].parent / "tiny.npz"), "test")
    names = {
        "model": model_and_run[0],
        "train_data": tiny,
        "test_data": tiny,
        "run_row": runs.run_row,
        "verify_preset": verify_preset.verify_preset,
        "find_trained": verify_preset.find_trained,
    }
    exec(block, {**vars(module), **names})


@pytest.mark.parametrize("module", MODULES, ids=lambda module: module.__name__)
def test_doctest(module):
    assert doctest.testmod(module).failed == 0


def test_there_are_examples():
    assert len(BLOCKS) >= 5
