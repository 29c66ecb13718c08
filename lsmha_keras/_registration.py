"""Makes saved objects loadable although this package imports nothing until it is used.

Keras finds custom classes in a registry, where a class puts itself when its module is imported. If
Keras is imported before this package, or as soon as a name of this package is used, each
serialisable class has a stand-in there that imports the real class when a saved object asks for it.
Likewise the models register themselves with KerasHub, so that its generic `from_preset` knows them.
"""

import importlib
import sys

from lsmha_keras import old_spellings
from lsmha_keras._tensorflow_notes import drop_retracing_warnings, drop_startup_notes

_PACKAGE = "lsmha_keras"
_registered: set[str] = set()


class _LazyClass:
    """Stand-in for a class in Keras's registry: has just what deserialisation calls."""

    def __init__(self, name, module):
        self.__name__ = name
        self._module = module

    def from_config(self, config):
        return getattr(import_quietly(self._module), self.__name__).from_config(config)


def register(classes):
    """Registers classes with Keras and KerasHub, as far as those are imported already.

    Args:
        classes: dict from the names of serialisable classes to their modules.
    """
    if "keras" in sys.modules and "keras" not in _registered:
        _registered.add("keras")
        registry = sys.modules["keras"].saving.get_custom_objects()
        for name, module in classes.items():
            registry.setdefault(f"{_PACKAGE}>{name}", _LazyClass(name, module))
        # Models saved under the names of before.
        for old, name in old_spellings.NAMES.items():
            if name in classes:
                registry.setdefault(f"{_PACKAGE}>{old}", _LazyClass(name, classes[name]))
    # Not while `models` itself is what imports KerasHub.
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
            # The first look for GPUs prints an error where there are none.
            sys.modules["tensorflow"].config.list_physical_devices()
    if "tensorflow" in sys.modules:
        drop_retracing_warnings()
    return module
