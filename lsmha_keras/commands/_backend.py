"""Chooses the Keras backend before Keras is imported."""

import importlib.util
import json
import os
import pathlib
import sys

from lsmha_keras._imports import import_quietly
from lsmha_keras.errors import InputError, PackageError

BACKENDS = ("tensorflow", "jax", "torch")
# Runtimes of `Predictor`, in the order of preference.
RUNTIMES = ("onnxruntime", "openvino", "keras")


def choose_backend(asked=None):
    """Sets `KERAS_BACKEND`, unless Keras is imported already.

    Args:
        asked: "tensorflow", "jax", "torch", or None for the environment's KERAS_BACKEND, else the
            backend in Keras's configuration file if that is installed, else the first one
            installed.

    Raises:
        ImportError: if the backend, or every backend, is missing.
        ValueError: if the environment names an unknown backend, or Keras already runs on another
            one.

    Example:

    ```python
    choose_backend("jax")
    ```
    """
    if "keras" in sys.modules:
        running = sys.modules["keras"].backend.backend()
        if asked not in (None, running):
            raise InputError(f"Keras already runs on {running}. Received: --backend {asked}")
        return
    backend = asked or os.environ.get("KERAS_BACKEND") or _first_installed()
    if backend not in BACKENDS:
        raise InputError(
            f"A backend is one of {', '.join(BACKENDS)}. Received: KERAS_BACKEND={backend}"
        )
    if not _is_installed(backend):
        raise PackageError(
            f"The backend {backend} is not installed: "
            f'pip install "lsmha-keras[{backend}]". Installed: {_installed() or "none"}'
        )
    os.environ["KERAS_BACKEND"] = backend


def import_framework():
    """Imports Keras, before the modules of this package that need it.

    Raises:
        ImportError: if Keras or its backend is missing or cannot be imported.
    """
    try:
        import_quietly("keras")
    except ImportError as error:
        raise PackageError(f"Keras cannot be imported: {error}") from error


def open_predictor(name, runtime=None, backend=None, num_threads=None):
    """Opens a preset, in onnxruntime if possible, so that Keras need not be imported.

    Args:
        name: name or directory of a preset, or an exported file.
        runtime: str, one of `RUNTIMES`, or `None` for onnxruntime, unless it is missing, the preset
            has no ONNX file, or a backend is requested.
        backend: str, the requested backend, or `None` for that of `KERAS_BACKEND`, if any.
        num_threads: as for `lsmha_keras.Predictor`.

    Returns:
        A `lsmha_keras.Predictor`.

    Raises:
        ImportError, ValueError: as `lsmha_keras.Predictor`.

    Example:

    ```python
    classify = open_predictor("lsmha-small")
    ```
    """
    asked = backend or os.environ.get("KERAS_BACKEND")
    from lsmha_keras.predictor import Predictor, find_onnx

    if runtime is None:
        usable = not asked and importlib.util.find_spec("onnxruntime")
        runtime = "onnxruntime" if usable and find_onnx(name)[0] else "keras"
    if runtime == "keras":
        choose_backend(asked)
        import_framework()
    return Predictor(name, runtime=runtime, num_threads=num_threads)


def _first_installed():
    installed = _installed()
    if not installed:
        raise PackageError(
            "Keras needs a backend and none is installed: "
            'pip install "lsmha-keras[tensorflow]" (or jax, or torch)'
        )
    # Keras writes this file unasked, and names tensorflow even where it is not installed.
    configured = _configured()
    return configured if configured in installed else installed[0]


def _configured():
    home = pathlib.Path(os.environ.get("KERAS_HOME") or pathlib.Path.home() / ".keras")
    try:
        return json.loads((home / "keras.json").read_text()).get("backend")
    except (OSError, ValueError):
        return None


def _installed():
    return [backend for backend in BACKENDS if _is_installed(backend)]


def _is_installed(backend):
    return importlib.util.find_spec(backend) is not None
