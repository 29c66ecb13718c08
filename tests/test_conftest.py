"""Two environments share the suite: what the first proved is left out in the second."""

import pathlib
import shutil
import subprocess
import sys

import pytest

pytestmark = pytest.mark.backend_free
TESTS = """
import pytest

@pytest.mark.parametrize("number", [1, 2])
def test_passes(number):
    pass

def test_fails():
    assert False

def test_is_skipped():
    pytest.skip("no package")
"""


def run(folder, *options):
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *options]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True).stdout


@pytest.mark.parametrize("workers", [[], ["-n", "2"]], ids=["one process", "two workers"])
def test_only_passed_tests_are_left_out(tmp_path, workers):
    if workers:
        pytest.importorskip("xdist")
    shutil.copy(pathlib.Path(__file__).with_name("conftest.py"), tmp_path)
    (tmp_path / "test_all.py").write_text(TESTS)
    (tmp_path / "pytest.ini").write_text("[pytest]\n")
    assert "1 failed, 2 passed, 1 skipped" in run(tmp_path, "--write-passed=passed", *workers)
    passed = (tmp_path / "passed").read_text().splitlines()
    assert passed == [f"test_all.py::test_passes[{number}]" for number in (1, 2)]
    rest = run(tmp_path, "--leave-out=passed", *workers)
    assert "1 failed, 1 skipped" in rest and "2 passed" not in rest
