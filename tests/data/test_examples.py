"""The examples in the docstrings run."""

import doctest
import importlib
import pkgutil

import pytest

import lsmha_keras.data

pytestmark = pytest.mark.backend_free

MODULES = [
    module.name
    for module in pkgutil.walk_packages(lsmha_keras.data.__path__, "lsmha_keras.data.")
    if not module.ispkg
]


@pytest.mark.parametrize("name", MODULES)
def test_docstring_examples(name):
    pytest.importorskip("sklearn")
    result = doctest.testmod(importlib.import_module(name), verbose=False)
    assert result.failed == 0


def test_there_are_examples():
    finder = doctest.DocTestFinder()
    examples = [
        example
        for name in MODULES
        for test in finder.find(importlib.import_module(name))
        for example in test.examples
    ]
    assert len(examples) > 40
