"""The count of the modules that a recipe enters."""

import pytest

from lsmha_keras.errors import nearest
from lsmha_keras.text_files import read_json
from tools.recipe_trip import trace_modules

pytestmark = pytest.mark.backend_free


def test_modules_and_returns_are_counted(tmp_path):
    (tmp_path / "a.json").write_text("1")

    def trip():
        nearest("a", ["b"])
        read_json(tmp_path / "a.json")  # calls `read_text` of the same module
        nearest("a", ["b"])

    calls, returns = trace_modules(trip)
    assert calls == {"errors.py": 2, "text_files.py": 2}
    assert returns == 1
