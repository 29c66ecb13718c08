"""Keeps imports lazy, saved objects loadable and TensorFlow's notes off the standard error.

Keras finds custom classes in a registry, where a class puts itself when its module is imported. If
Keras is imported before this package, or as soon as a name of this package is used, each
serialisable class has a stand-in there that imports the real class when a saved object asks for it.
Likewise the models register themselves with KerasHub, so that its generic `from_preset` knows them.

TensorFlow writes notes about oneDNN and missing GPUs from static initialisers, before
`TF_CPP_MIN_LOG_LEVEL` or any other setting is read. KerasHub imports TensorFlow on every backend,
so these notes would stand before every result. As no setting reaches them, the standard error is
held back while TensorFlow is imported. Only known notes are dropped; all other lines are written
when the import ends. With TF_CPP_MIN_LOG_LEVEL=0 nothing is dropped.
"""

import contextlib
import importlib
import os
import re
import sys

from lsmha_keras import old_spellings
from lsmha_keras.errors import PackageError

_PACKAGE = "lsmha_keras"
_registered: set[str] = set()

_LEVEL = "TF_CPP_MIN_LOG_LEVEL"
# A level, the time and the thread, as absl logs them: `I0000 00:00:1795856298.9  69 port.cc:153]`
_NOTES = re.compile(
    rb"WARNING: All log messages before absl::InitializeLog\(\) is called are written to STDERR"
    rb"|I\d{4} [\d:.]+ +\d+ \w+\.cc:\d+\] "
    rb"|E\d{4} [\d:.]+ +\d+ cuda_platform\.cc:\d+\] failed call to cuInit: "
)
_RETRACING = re.compile(
    r"\d+ out of the last \d+ calls to <function TensorFlowTrainer\..* triggered tf\.function "
    r"retracing"
)


class _LazyClass:
    """Stand-in for a class in Keras's registry, with only what deserialisation calls."""

    def __init__(self, name, module):
        self.__name__ = name
        self._module = module

    def from_config(self, config):
        return getattr(import_quietly(self._module), self.__name__).from_config(config)


def register(classes):
    """Registers classes with Keras and KerasHub, if those are already imported.

    Args:
        classes: dict from the names of serialisable classes to their modules.
    """
    if "keras" in sys.modules and "keras" not in _registered:
        _registered.add("keras")
        registry = sys.modules["keras"].saving.get_custom_objects()
        for name, module in classes.items():
            registry.setdefault(f"{_PACKAGE}>{name}", _LazyClass(name, module))
        # Models saved under former names.
        for old, name in old_spellings.NAMES.items():
            if name in classes:
                registry.setdefault(f"{_PACKAGE}>{old}", _LazyClass(name, classes[name]))
    # Not while `models` itself imports KerasHub.
    if "keras_hub" in sys.modules and f"{_PACKAGE}.models" not in sys.modules:
        importlib.import_module(f"{_PACKAGE}.models")
    if "tensorflow" in sys.modules:
        drop_retracing_warnings()


def import_quietly(name):
    """Imports a module that may import TensorFlow, without TensorFlow's notes.

    Args:
        name: str, such as "keras_hub", which imports TensorFlow on every backend.

    Returns:
        The module.

    Raises:
        ImportError: if it or what it imports is missing.

    Example:

    ```python
    keras_hub = import_quietly("keras_hub")
    ```
    """
    if name in sys.modules or "tensorflow" in sys.modules:
        return importlib.import_module(name)
    with drop_startup_notes():
        module = importlib.import_module(name)
        if "tensorflow" in sys.modules:
            # The first search for GPUs prints an error if there are none.
            sys.modules["tensorflow"].config.list_physical_devices()
    if "tensorflow" in sys.modules:
        drop_retracing_warnings()
    return module


@contextlib.contextmanager
def drop_startup_notes():
    """Holds the standard error back, then writes everything but TensorFlow's notes.

    Sets TF_CPP_MIN_LOG_LEVEL to 2, no notes and no warnings, unless the environment sets it. If the
    import fails, nothing is dropped.

    Example:

    ```python
    with drop_startup_notes():
        import tensorflow
    ```
    """
    os.environ.setdefault(_LEVEL, "2")
    if _wants_notes():
        yield
        return
    _flush()
    try:
        saved = os.dup(2)
    except OSError:  # the process has no standard error
        yield
        return
    import tempfile

    failed = True
    with tempfile.TemporaryFile() as held:
        os.dup2(held.fileno(), 2)
        try:
            yield
            failed = False
        finally:
            _flush()
            os.dup2(saved, 2)
            os.close(saved)
            held.seek(0)
            with open(2, "wb", closefd=False) as stderr:
                stderr.writelines(line for line in held if failed or not _NOTES.match(line))


def drop_retracing_warnings():
    """Drops the warnings that Keras's step functions are traced too often.

    TensorFlow counts tracings per source code, and the step functions of all models have the same
    source: five models that predict once each raise the warning, although none was traced twice.
    Nor is one model traced for every shape, because Keras sets `reduce_retracing`. Warnings about
    other functions stay.

    Example:

    ```python
    drop_retracing_warnings()
    ```
    """
    if not _wants_notes():
        import logging

        logging.getLogger("tensorflow").addFilter(_is_no_retracing)


def _is_no_retracing(record):
    return not _RETRACING.match(record.getMessage())


def _wants_notes():
    return os.environ.get(_LEVEL) == "0"


def _flush():
    if sys.stderr is not None:
        sys.stderr.flush()


def needed_package(name, extra="export", need=None):
    """Imports an optional package.

    Args:
        name: str, name of the module.
        extra: str, extra of this package that installs it.
        need: str, begin of the error message, such as "Clustering heads needs SciPy".

    Returns:
        The module.

    Raises:
        ImportError: if it cannot be imported; says how to install it.

    Example:

    ```python
    onnxruntime = needed_package("onnxruntime")
    ```
    """
    try:
        return importlib.import_module(name)
    except ImportError as error:
        need = need or f"The package {name} is needed and cannot be imported"
        raise PackageError(f'{need} ({error}): pip install "lsmha-keras[{extra}]"') from error
