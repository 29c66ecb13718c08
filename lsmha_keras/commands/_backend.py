"""Chooses the Keras backend before Keras is imported."""

import importlib.util
import json
import os
import pathlib
import sys

from lsmha_keras._registration import import_quietly
from lsmha_keras.errors import InputError, PackageError

BACKENDS = ("tensorflow", "jax", "torch")


def choose_backend(asked=None):
    """Sets `KERAS_BACKEND`, unless Keras is imported already.

    Args:
        asked: "tensorflow", "jax", "torch" or None: the environment's KERAS_BACKEND, else the one
            in Keras's own configuration file when it is installed, else the first one installed.

    Raises:
        ImportError: if the backend, or every backend, is missing.
        ValueError: if the environment names an unknown backend, or Keras already runs on another
            one than the one asked for.

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


def _first_installed():
    installed = _installed()
    if not installed:
        raise PackageError(
            "Keras needs a backend and none is installed: "
            'pip install "lsmha-keras[tensorflow]" (or jax, or torch)'
        )
    # Keras writes this file by itself, naming tensorflow where there is none: not to be trusted.
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
