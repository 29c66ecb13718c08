"""Makes saved objects loadable although this package imports nothing until it is used.

Keras finds custom classes in a registry. As soon as Keras is imported, each serialisable class gets
a stand-in there that imports the real class when a saved object asks for it; as soon as KerasHub is
imported, the models register themselves, so that KerasHub's generic `from_preset` knows them.
TensorFlow, which KerasHub imports on every backend, is imported without its notes.
"""

import contextlib
import importlib
import importlib.abc
import sys

from lsmha_keras._tensorflow_notes import drop_retracing_warnings, drop_startup_notes

_PACKAGE = "lsmha_keras"


class _LazyClass:
    """Stand-in for a class in Keras's registry: has just what deserialisation calls."""

    def __init__(self, name, module):
        self.__name__ = name
        self._module = module

    def from_config(self, config):
        return getattr(importlib.import_module(self._module), self.__name__).from_config(config)


class _ImportWatcher(importlib.abc.MetaPathFinder):
    """Wraps the import of the named modules, each in a context manager of the module."""

    def __init__(self, contexts):
        self.contexts = contexts

    def find_spec(self, fullname, path=None, target=None):
        if fullname not in self.contexts:
            return None
        finders = (finder for finder in sys.meta_path if finder is not self)
        specs = (finder.find_spec(fullname, path, target) for finder in finders)
        spec = next(filter(None, specs), None)
        if spec is not None and spec.loader is not None:
            exec_module = spec.loader.exec_module

            def exec_in_context(module):
                with self.contexts.pop(fullname, contextlib.nullcontext)(module):
                    exec_module(module)

            spec.loader.exec_module = exec_in_context
        return spec


def watch(classes):
    """Registers `classes` ({name: module}) with Keras and KerasHub, now or when they come."""

    @contextlib.contextmanager
    def keras(module):
        yield
        from keras.saving import get_custom_objects

        for name, module in classes.items():
            get_custom_objects().setdefault(f"{_PACKAGE}>{name}", _LazyClass(name, module))

    @contextlib.contextmanager
    def keras_hub(module):
        yield
        # Not while `models` itself is what imports KerasHub.
        if f"{_PACKAGE}.models" not in sys.modules:
            importlib.import_module(f"{_PACKAGE}.models")

    @contextlib.contextmanager
    def tensorflow(module):
        with drop_startup_notes():
            yield
            # The first look for GPUs prints an error where there are none.
            module.config.list_physical_devices()
        drop_retracing_warnings()

    contexts = {"keras": keras, "keras_hub": keras_hub, "tensorflow": tensorflow}
    if "tensorflow" in sys.modules:
        contexts.pop("tensorflow")
        drop_retracing_warnings()
    for name in [name for name in contexts if name in sys.modules]:
        with contexts.pop(name)(sys.modules[name]):
            pass
    if contexts:
        sys.meta_path.insert(0, _ImportWatcher(contexts))
