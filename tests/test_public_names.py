"""What `import lsmha_keras` gives, to Python, to editors and to Keras, and what it leaves alone."""

import ast
import inspect
import os
import pathlib
import subprocess
import sys

import pytest

import lsmha_keras

ROOT = pathlib.Path(lsmha_keras.__file__).parent.parent
pytestmark = pytest.mark.backend_free


def test_editors_see_the_names_that_python_finds():
    tree = ast.parse(inspect.getsource(lsmha_keras))
    (block,) = (
        node
        for node in tree.body
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"
    )
    seen = {}
    for statement in block.body:
        (alias,) = statement.names
        assert alias.asname == alias.name  # or type checkers take it for private
        seen[alias.name] = statement.module
    assert seen == lsmha_keras._PUBLIC


def test_an_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="no attribute 'Recipes'"):
        _ = lsmha_keras.Recipes


def test_import_loads_no_framework_and_no_import_hook():
    code = (
        "import sys\n"
        "finders = list(sys.meta_path)\n"
        "import lsmha_keras\n"
        "assert sys.meta_path == finders\n"
        "heavy = {'keras', 'keras_hub', 'tensorflow', 'jax', 'torch', 'numpy'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
        "assert set(dir(lsmha_keras)) == set(lsmha_keras.__all__)\n"
    )
    run(code)


def test_keras_knows_all_classes_as_soon_as_one_is_used():
    run(
        "import lsmha_keras, keras, sys\n"
        "lsmha_keras.SequencePooling\n"
        "assert 'lsmha_keras>CCTBackbone' in keras.saving.get_custom_objects()\n"
        "assert 'keras_hub' not in sys.modules\n"
    )


def run(code):
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    subprocess.run([sys.executable, "-c", code], env=environment, check=True)
