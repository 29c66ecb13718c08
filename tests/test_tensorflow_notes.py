"""Only what TensorFlow prints while it is imported is hidden."""

import logging
import os
import pathlib
import subprocess
import sys

import keras
import numpy as np
import pytest

import lsmha_keras
from lsmha_keras._imports import drop_startup_notes

ROOT = pathlib.Path(__file__).parent.parent
NOTES = """\
WARNING: All log messages before absl::InitializeLog() is called are written to STDERR
I0000 00:00:1795856298.995183    6933 port.cc:153] oneDNN custom operations are on.
I0000 00:00:1795856298.995510    6933 cudart_stub.cc:31] Could not find cuda drivers on your machine
E0000 00:00:1795856307.147635    6933 cuda_platform.cc:52] failed call to cuInit: INTERNAL: CUDA
"""
OTHERS = """\
a line of the user's
E0000 00:00:1795856307.147635    6933 gpu_process_state.cc:200] out of memory
W0000 00:00:1795856307.147635    6933 cpu_allocator.cc:83] Allocation exceeds 10% of free memory
UserWarning: I0000 00:00:1795856298.995183    6933 port.cc:153] quoted
"""
# Three lines of a user's, and a fourth of which this package warns.
SCRIPT = """
import lsmha_keras as lsmha, numpy as np
model = lsmha.CCTImageClassifier.from_preset("cct_2_3x2", num_classes=3)
model.predict(np.zeros((1, 32, 32, 3), "uint8"))
lsmha.evaluate(model, (np.full((1, 32, 32, 3), 0.5, "float32"), np.zeros(1, int)))
"""


def test_a_script_prints_our_warning_and_nothing_else():
    done = run(SCRIPT)
    assert done.returncode == 0, done.stderr
    assert not set("\b\r\x1b") & set(done.stdout)
    message = (
        "UserWarning: Images are expected with values in 0 .. 255, and the largest here is 0.5"
    )
    assert message in done.stderr
    # Python prints a warning and the line that caused it, which a script of `-c` has not.
    assert len(done.stderr.splitlines()) <= 2, done.stderr


def test_a_predictor_in_keras_prints_nothing_else():
    done = run(
        "import numpy as np, lsmha_keras as lsmha\n"
        "classify = lsmha.Predictor('lsmha-small', runtime='keras')\n"
        "print(classify.logits(np.zeros((1, 32, 32, 3), 'uint8')).shape)"
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "(1, 100)\n", "")


BENCHMARKS = """
import benchmarks, importlib, pkgutil
for module in pkgutil.iter_modules(benchmarks.__path__, "benchmarks."):
    importlib.import_module(module.name)
"""
TOOL = """
import runpy, sys
sys.argv = ["recipe_trip.py", "--help"]
runpy.run_path("tools/recipe_trip.py", run_name="__main__")
"""


@pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="Keras imports it here")
@pytest.mark.skipif(not (ROOT / "tools").exists(), reason="this looks at a checkout")
@pytest.mark.parametrize("code", [BENCHMARKS, TOOL], ids=["benchmarks", "tool"])
def test_scripts_of_a_checkout_print_nothing_else(code):
    done = run(code)
    assert (done.returncode, done.stderr) == (0, ""), done.stderr


@pytest.mark.backend_free
def test_only_the_notes_are_dropped(capfd, monkeypatch):
    monkeypatch.delenv("TF_CPP_MIN_LOG_LEVEL", raising=False)
    with drop_startup_notes():
        os.write(2, (NOTES + OTHERS).encode())
        assert os.environ["TF_CPP_MIN_LOG_LEVEL"] == "2"
    os.write(2, NOTES.encode())
    assert capfd.readouterr().err == OTHERS + NOTES


@pytest.mark.backend_free
def test_a_level_of_the_user_stays(capfd, monkeypatch):
    for level, expected in (("0", NOTES + OTHERS), ("3", OTHERS)):
        monkeypatch.setenv("TF_CPP_MIN_LOG_LEVEL", level)
        with drop_startup_notes():
            os.write(2, (NOTES + OTHERS).encode())
        assert os.environ["TF_CPP_MIN_LOG_LEVEL"] == level
        assert capfd.readouterr().err == expected


@pytest.mark.backend_free
def test_a_failed_import_drops_nothing(capfd, monkeypatch):
    monkeypatch.setenv("TF_CPP_MIN_LOG_LEVEL", "2")
    with pytest.raises(ImportError), drop_startup_notes():
        os.write(2, NOTES.encode())
        raise ImportError
    assert capfd.readouterr().err == NOTES


@pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="tensorflow traces functions")
def test_no_retracing_warning_and_no_retracing():
    messages = []
    handler = logging.Handler()
    handler.emit = lambda record: messages.append(record.getMessage())
    logger = logging.getLogger("tensorflow")
    logger.addHandler(handler)
    try:
        images, labels = np.zeros((11, 16, 16, 3), "uint8"), np.arange(11) % 3
        for _ in range(6):
            model = lsmha_keras.CCTImageClassifier.from_preset(
                "cct_2_3x2", image_shape=(16, 16, 3), hidden_dim=8, num_heads=2, num_classes=3
            )
            for count in (11, 3, 8):  # the last batch of each is filled up
                lsmha_keras.evaluate(model, (images[:count], labels[:count]), batch_size=4)
            assert model.predict_function.experimental_get_tracing_count() == 1
        logger.warning("a warning of the user's")
    finally:
        logger.removeHandler(handler)
    assert messages == ["a warning of the user's"]


def run(code):
    unset = {"TF_CPP_MIN_LOG_LEVEL", "PYTHONWARNINGS"}
    environment = {name: value for name, value in os.environ.items() if name not in unset}
    return subprocess.run(
        [sys.executable, "-c", code],
        env={**environment, "PYTHONPATH": str(ROOT)},
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
