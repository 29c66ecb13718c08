"""Reads and writes preset directories: saves them atomically, reads the classifier they hold."""

import contextlib
import json
import math
import pathlib

import keras

from lsmha_keras.checksums import write_checksums
from lsmha_keras.directory_lock import DirectoryLock
from lsmha_keras.errors import InputError
from lsmha_keras.files import fill_directory
from lsmha_keras.presets import ONNX
from lsmha_keras.text_files import read_json


@contextlib.contextmanager
def save_preset(preset_dir, variables):
    """Yields a directory to save a preset to, which becomes `preset_dir` once it is complete.

    Other files in `preset_dir` stay, except a `model.onnx`, which was made from the former weights.
    The checksums cover all files.

    Args:
        preset_dir: path.
        variables: list of `keras.Variable` to be saved; their size tells the disk space needed.

    Yields:
        `pathlib.Path`.

    Raises:
        OSError: if another process is saving a preset there, or the disk is too full;
            `preset_dir` is then unchanged.

    Example:

    ```python
    from lsmha_keras.models.preset_files import save_preset

    backbone = lsmha_keras.CCTBackbone.from_preset("cct_2_3x2")
    with save_preset("my_preset", backbone.variables) as directory:
        backbone.save_weights(directory / "model.weights.h5")
    ```
    """
    path = pathlib.Path(preset_dir)
    # HDF5 adds a few KiB for each variable and its groups. The estimate is generous, because HDF5
    # may crash the process on a full disk.
    sizes = [math.prod(v.shape) * (8 if str(v.dtype).endswith("64") else 4) for v in variables]
    needed = sum(size + 4096 for size in sizes) + 2**18
    beside = path if path.is_dir() else path.absolute().parent
    with DirectoryLock(beside, f".{path.absolute().name}.lsmha.lock"):
        with fill_directory(path, needed) as directory:
            yield directory
            _name_no_mixed_policy(directory / "config.json")
            write_checksums(directory)
        (path / ONNX).unlink(missing_ok=True)
        write_checksums(path)


def _name_no_mixed_policy(path):
    """Replaces a mixed-precision policy in a saved config by float32, the dtype of the weights.

    KerasHub's own loaders fail on mixed policies ("Invalid dtype: mixed_bfloat16"), and replace any
    float policy by Keras's global one. Remove this once KerasHub's `is_float_dtype` (0.32) accepts
    the names of mixed policies.

    Args:
        path: path of a backbone's config; it may be missing.
    """
    if not path.is_file():
        return
    saved = json.loads(path.read_text(encoding="utf-8"))
    dtype = saved["config"].get("dtype")
    policy = dtype.get("config", {}) if isinstance(dtype, dict) else {}
    if policy.get("name", "").startswith("mixed_"):
        policy["name"] = "float32"
        path.write_text(json.dumps(saved, indent=4), encoding="utf-8")


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
    from lsmha_keras.models.preset_files import saved_classifier
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
    related = issubclass(found, cls) or issubclass(cls, found)
    if not related or not issubclass(found.own_backbone_cls, cls.own_backbone_cls):
        raise InputError(
            f"The preset does not hold a `{cls.__name__}`; `lsmha_keras.load_classifier` loads "
            f"whatever it holds. Received: {name} in {path}"
        )
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
