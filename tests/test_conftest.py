"""Two environments share the suite, and TensorFlow optimises graphs where a test asks for it."""

import pathlib
import shutil
import subprocess
import sys

import keras
import pytest

from tests.checks import optimised_graphs

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


@pytest.mark.skipif(keras.config.backend() != "tensorflow", reason="about TensorFlow's graphs")
def test_graphs_are_optimised_where_a_test_asks_for_it():
    import tensorflow as tf

    def left_out():
        return tf.config.optimizer.get_experimental_options()["disable_meta_optimizer"]

    assert left_out()
    with pytest.raises(ZeroDivisionError), optimised_graphs():
        assert not left_out()
        raise ZeroDivisionError
    assert left_out()
