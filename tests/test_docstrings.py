"""The examples in the docstrings of layers, models, presets and surgery run."""

import ast
import importlib
import importlib.util
import pathlib
import pkgutil
import re

import keras
import numpy as np
import pytest

import lsmha_keras
from tests.reference import vit_pytorch_cct


def modules():
    yield "lsmha_keras.presets"
    for package in ("layers", "models", "surgery"):
        path = importlib.import_module(f"lsmha_keras.{package}").__path__
        yield from (m.name for m in pkgutil.iter_modules(path, f"lsmha_keras.{package}."))


def examples():
    for name in modules():
        # Read, not imported: some modules need a backend that may not be installed.
        source = pathlib.Path(importlib.util.find_spec(name).origin).read_text(encoding="utf-8")
        for node in ast.walk(ast.parse(source)):
            if isinstance(node, (ast.FunctionDef, ast.ClassDef)):
                text = ast.get_docstring(node) or ""
                for block in re.findall(r"```python\n(.*?)```", text, re.DOTALL):
                    yield pytest.param(block, id=node.name)


EXAMPLES = list(examples())


@pytest.mark.parametrize("code", EXAMPLES)
def test_example(code, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    if ".pth" in code:
        model = vit_pytorch_cct().cct_7(img_size=32, num_classes=100)
        import torch

        path = re.search(r'"(\S+\.pth)"', code)[1]
        torch.save(model.state_dict(), path)
    exec(code, {"np": np, "keras": keras, "lsmha_keras": lsmha_keras})


def test_there_are_examples():
    assert len(EXAMPLES) >= 12
