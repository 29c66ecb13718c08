"""What a preset's directory says about its classifier."""

import keras

from lsmha_keras.errors import InputError
from lsmha_keras.text_files import read_json


def saved_classifier(directory, cls):
    """Reads the class and the arguments of the classifier that was saved.

    KerasHub 0.32 refuses a preset that was saved in mixed precision, and a class that did not save
    the preset itself gets no weights from it.

    Args:
        directory: `pathlib.Path` of the preset.
        cls: class that is asked to load it.

    Returns:
        A class, `cls` or the subclass of it that was saved, and a dict of arguments without the
        backbone, for `from_config`. The dict is empty where a backbone alone was saved.

    Raises:
        ValueError: if Keras does not know the class, or it is of another kind than `cls`.

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
        raise InputError(f"The preset holds no `{cls.__name__}`. Received: {name} in {path}")
    arguments = {key: value for key, value in saved["config"].items() if key != "backbone"}
    return (found if issubclass(found, cls) else cls), arguments


def saved_preprocessor(directory, preprocessor_cls):
    """Loads the preprocessor that was saved into a directory beside a backbone.

    Args:
        directory: `pathlib.Path` of the preset.
        preprocessor_cls: its class.

    Returns:
        A preprocessor.

    Raises:
        ValueError: if there is none: how images were normalised cannot be guessed.
    """
    if (directory / "preprocessor.json").is_file():
        return preprocessor_cls.from_preset(str(directory.resolve()))
    raise InputError(
        "The preset holds a backbone that was saved without preprocessing: give `preprocessor`, "
        "such as `CCTImageClassifierPreprocessor(CCTImageConverter.for_images(image_shape, mean, "
        f"std))`, or `None` for images that are normalised already. Received: preset={directory}"
    )
