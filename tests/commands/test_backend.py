"""Which Keras backend the command line chooses."""

import json
import os
import sys

import pytest

from lsmha_keras import cli
from lsmha_keras.commands import _common
from lsmha_keras.errors import InputError

pytestmark = pytest.mark.backend_free


@pytest.mark.parametrize(
    ("asked", "variable", "configured", "installed", "chosen"),
    [
        ("torch", "jax", "tensorflow", "tensorflow jax torch", "torch"),
        (None, "jax", "tensorflow", "tensorflow jax torch", "jax"),
        (None, None, "torch", "tensorflow jax torch", "torch"),
        (None, None, "tensorflow", "jax torch", "jax"),  # Keras's file names what is not there
        (None, None, None, "tensorflow jax torch", "tensorflow"),
        (None, None, None, "torch", "torch"),
    ],
)
def test_choice_of_backend(asked, variable, configured, installed, chosen, monkeypatch, tmp_path):
    surroundings(monkeypatch, tmp_path, variable, configured, installed)
    _common.choose_backend(asked)
    assert os.environ["KERAS_BACKEND"] == chosen


@pytest.mark.parametrize(
    ("asked", "installed", "message"),
    [
        ("jax", "torch", r'jax is not installed: pip install "lsmha-keras\[jax\]".*torch'),
        (None, "", r"needs a backend and none is installed"),
    ],
)
def test_missing_backend(asked, installed, message, monkeypatch, tmp_path):
    surroundings(monkeypatch, tmp_path, None, None, installed)
    with pytest.raises(ImportError, match=message):
        _common.choose_backend(asked)


def test_an_unknown_backend_is_refused(monkeypatch, tmp_path):
    surroundings(monkeypatch, tmp_path, "theano", None, "jax")
    with pytest.raises(InputError, match="tensorflow, jax, torch. Received: KERAS_BACKEND=theano"):
        _common.choose_backend()


def test_another_backend_than_the_running_one_is_refused(capsys):
    import keras

    other = next(b for b in _common.BACKENDS if b != keras.backend.backend())
    assert cli.main(["--backend", other, "predict", "x", "y"]) == 2
    assert f"Received: --backend {other}" in capsys.readouterr().err


def surroundings(monkeypatch, home, variable, configured, installed):
    monkeypatch.delitem(sys.modules, "keras", raising=False)
    monkeypatch.setattr(_common, "_is_installed", lambda backend: backend in installed.split())
    monkeypatch.setenv("KERAS_HOME", str(home))
    monkeypatch.setenv("KERAS_BACKEND", variable or "")
    if configured:
        (home / "keras.json").write_text(json.dumps({"backend": configured}))
