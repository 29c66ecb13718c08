"""What `import lsmha_keras` offers to Python, editors and Keras, and what it does not touch."""

import ast
import importlib.util
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


# What Keras asks of a class, with arguments that Keras gives.
KERAS = {"build", "call", "get_config", "from_config", "on_train_begin", "on_epoch_end", "quantize"}
KERAS |= {"load_weights", "load_task_weights", "save_task_weights", "augment"}
KERAS |= {"default_lora_layer_names"}
# What a kind of attention overrides; `LargeScaleMultiHeadAttention` describes it.
KERAS |= {"build_heads", "attend", "count_multiply_adds"}
KERAS |= {"multi_head_weights", "take_multi_head_weights"}
KERAS |= {"head_units", "pruned_options", "take_head_weights"}


def public_functions():
    for name, module in lsmha_keras._PUBLIC.items():
        place = importlib.util.find_spec(module)
        if place.submodule_search_locations:  # a package: follow the import, if it is one
            tree = ast.parse(pathlib.Path(place.origin).read_text(encoding="utf-8"))
            imports = [n for n in tree.body if isinstance(n, ast.ImportFrom)]
            found = (n.module for n in imports if name in {a.name for a in n.names})
            module = next(found, module)
            place = importlib.util.find_spec(module)
        tree = ast.parse(pathlib.Path(place.origin).read_text(encoding="utf-8"))
        for node in tree.body:
            if getattr(node, "name", None) == name:
                for function in node.body if isinstance(node, ast.ClassDef) else [node]:
                    if isinstance(function, ast.FunctionDef) and is_public(function.name):
                        yield pytest.param(function, id=f"{name}.{function.name}")


def is_public(name):
    return name == "__init__" or not name.startswith(("_", "compute_", "load_own", "save_own"))


@pytest.mark.parametrize("function", list(public_functions()))
def test_the_public_surface_is_annotated(function):
    if function.name in KERAS:
        return
    given = function.args
    arguments = [*given.args, *given.kwonlyargs, *filter(None, (given.vararg, given.kwarg))]
    missing = [a.arg for a in arguments if a.annotation is None and a.arg not in ("self", "cls")]
    assert not missing and function.returns is not None


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
