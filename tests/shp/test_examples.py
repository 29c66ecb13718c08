"""The examples in the docstrings of the measuring modules run."""

import ast
import doctest
import importlib
import inspect
import re

import numpy as np
import pytest

import lsmha_keras
from lsmha_keras.data.datasets import ArrayDataset
from lsmha_keras.shp.readout_trainer import fit_readout
from tests.checks import random_images
from tests.shp.models import small_classifier

MODULES = [
    importlib.import_module(f"lsmha_keras.shp.{name}")
    for name in (
        "attention_profile",
        "controls",
        "exemplars",
        "head_outputs",
        "head_score_table",
        "performance",
        "readout_trainer",
        "readouts",
        "report.page_data",
        "shp_result",
        "statistics",
    )
] + [importlib.import_module("lsmha_keras.data.labelled")]
PRESET = 'lsmha_keras.CCTImageClassifier.from_preset("cct_2_3x2_h16_cifar100")'


def blocks():
    for module in MODULES:
        for node in ast.walk(ast.parse(inspect.getsource(module))):
            if isinstance(node, (ast.FunctionDef, ast.ClassDef)):
                text = ast.get_docstring(node) or ""
                for block in re.findall(r"Example:\n\n```python\n(.*?)```", text, re.DOTALL):
                    yield pytest.param(module, block, id=node.name)


BLOCKS = list(blocks())


@pytest.fixture(scope="module")
def names():
    """Small versions of what the examples assume."""
    model = small_classifier()
    images, labels = random_images(16, 16, 16, 3), np.arange(16) % 5
    readouts = fit_readout(model, (images, labels), epochs=1, verbose=0)
    results = lsmha_keras.single_head_performance(model, readouts, (images, labels), verbose=0)
    return {
        "lsmha_keras": lsmha_keras,
        "np": np,
        "model": model,
        "classifier": model,
        "images": images,
        "labels": labels,
        "data": (images, labels),
        "test_data": ArrayDataset(images, labels),
        "readouts": readouts,
        "results": results,
        # Readouts for 100 labels would take the data's 5 for a subset.
        "num_labels": 5,
    }


@pytest.mark.parametrize("module, block", BLOCKS)
def test_python_block(module, block, names, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    block = block.replace(PRESET, "model").replace('"cifar100"', "data")
    block = block.replace("num_labels=100", "num_labels=num_labels").replace("[7]", "[3]")
    exec(block, {**vars(module), **names})


@pytest.mark.parametrize("module", MODULES, ids=lambda module: module.__name__)
def test_doctest(module):
    assert doctest.testmod(module, extraglobs={"np": np}).failed == 0


def test_there_are_examples():
    assert len(BLOCKS) >= 10
