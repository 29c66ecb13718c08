"""The count of the modules that a recipe enters."""

import importlib.util
import pathlib

import pytest

from lsmha_keras.errors import nearest
from lsmha_keras.text_files import read_json

TOOL = pathlib.Path(__file__).parent.parent / "tools" / "recipe_trip.py"
pytestmark = [
    pytest.mark.backend_free,
    pytest.mark.skipif(not TOOL.exists(), reason="this looks at a checkout, which this is not"),
]


def test_modules_and_returns_are_counted(tmp_path):
    spec = importlib.util.spec_from_file_location("recipe_trip", TOOL)
    tool = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(tool)
    (tmp_path / "a.json").write_text("1")

    def trip():
        nearest("a", ["b"])
        read_json(tmp_path / "a.json")  # calls `read_text` of the same module
        nearest("a", ["b"])

    calls, returns = tool.trace_modules(trip)
    assert calls == {"errors.py": 2, "text_files.py": 2}
    assert returns == 1
