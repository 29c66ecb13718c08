"""Reads the classifier's class, arguments and preprocessor from a preset directory."""

import keras

from lsmha_keras.errors import InputError
from lsmha_keras.text_files import read_json


def saved_classifier(directory, cls):
    """Reads the class and the arguments of a saved classifier.

    KerasHub's own loader (0.32) refuses presets saved in mixed precision, and loads no weights into
    a class other than the one that saved them.

    Args:
        directory: `pathlib.Path` of the preset.
        cls: class whose `from_preset` was called.

    Returns:
        The class to build, `cls` or the saved subclass of it, and a dict of arguments for its
        `from_config`, without the backbone. The dict is empty if only a backbone was saved.

    Raises:
        ValueError: if Keras does not know the class, or it is unrelated to `cls`.

    Example:

    ```python
    from lsmha_keras.models.saved_classifier import saved_classifier
    from lsmha_keras.presets import resolve_preset

    cls, arguments = saved_classifier(resolve_preset("lsmha-small"), lsmha_keras.CCTImageClassifier)
    ```
    """
    path = directory / "task.json"
    if not path.is_file():
        return cls, {}
    saved = read_json(path)
    name = f"{saved['module']}.{saved['class_name']}"
    found = keras.saving.get_registered_object(saved["registered_name"])
    if name == f"{cls.__module__}.{cls.__qualname__}":
        found = cls
    if found is None:
        raise InputError(
            "The preset was saved by a class that Keras does not know: register it with "
            "`keras.saving.register_keras_serializable`, and import its module before loading. "
            f"Received: {name} in {path}"
        )
    if not (issubclass(found, cls) or issubclass(cls, found)):
        raise InputError(f"The preset does not hold a `{cls.__name__}`. Received: {name} in {path}")
    arguments = {key: value for key, value in saved["config"].items() if key != "backbone"}
    return (found if issubclass(found, cls) else cls), arguments


def saved_preprocessor(directory, preprocessor_cls):
    """Loads the preprocessor that was saved with a backbone.

    Args:
        directory: `pathlib.Path` of the preset.
        preprocessor_cls: class of the preprocessor.

    Returns:
        A preprocessor.

    Raises:
        ValueError: if there is none, because the normalisation cannot be guessed.
    """
    if (directory / "preprocessor.json").is_file():
        return preprocessor_cls.from_preset(str(directory.resolve()))
    raise InputError(
        "The preset holds a backbone that was saved without preprocessing: pass `preprocessor`, "
        "such as `CCTImageClassifierPreprocessor(CCTImageConverter.for_images(image_shape, mean, "
        f"std))`, or `None` for images that are already normalised. Received: preset={directory}"
    )
