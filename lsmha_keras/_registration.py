"""Makes saved objects loadable although this package imports nothing until it is used.

Keras finds custom classes in a registry. As soon as Keras is imported, each serialisable class gets
a stand-in there that imports the real class when a saved object asks for it; as soon as KerasHub is
imported, the models register themselves, so that KerasHub's generic `from_preset` knows them.
"""

import importlib
import importlib.abc
import importlib.util
import sys

_PACKAGE = "lsmha_keras"


class _LazyClass:
    """Stand-in for a class in Keras's registry: has just what deserialisation calls."""

    def __init__(self, name, module):
        self.__name__ = name
        self._module = module

    def from_config(self, config):
        return getattr(importlib.import_module(self._module), self.__name__).from_config(config)


class _ImportWatcher(importlib.abc.MetaPathFinder):
    """Calls a function once, right after the named module was imported."""

    def __init__(self, callbacks):
        self.callbacks = callbacks

    def find_spec(self, fullname, path=None, target=None):
        callback = self.callbacks.pop(fullname, None)
        if callback is None:
            return None
        spec = importlib.util.find_spec(fullname)
        if spec is not None:
            exec_module = spec.loader.exec_module

            def exec_then_call(module):
                exec_module(module)
                callback()

            spec.loader.exec_module = exec_then_call
        return spec


def watch(classes):
    """Registers `classes` ({name: module}) with Keras and KerasHub, now or when they come."""

    def register_stand_ins():
        from keras.saving import get_custom_objects

        for name, module in classes.items():
            get_custom_objects().setdefault(f"{_PACKAGE}>{name}", _LazyClass(name, module))

    def import_models():
        # Not while `models` itself is what imports KerasHub.
        if f"{_PACKAGE}.models" not in sys.modules:
            importlib.import_module(f"{_PACKAGE}.models")

    callbacks = {"keras": register_stand_ins, "keras_hub": import_models}
    for module in [module for module in callbacks if module in sys.modules]:
        callbacks.pop(module)()
    if callbacks:
        sys.meta_path.insert(0, _ImportWatcher(callbacks))
