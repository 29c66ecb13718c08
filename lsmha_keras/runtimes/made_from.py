"""Identifies the state of a preset that a file was made from."""

import pathlib

from lsmha_keras.checksums import sha256

_CONFIGS = ("config.json", "task.json", "preprocessor.json", "image_converter.json")
_WEIGHTS = ("*.weights.h5", "*.weights.json")


def made_from(directory):
    """Returns the checksums of the files that determine what a preset computes.

    A file made from a preset, such as its `model.onnx`, stores them, so that it is never used with
    other weights or class names.

    Args:
        directory: path of the preset.

    Returns:
        A dict from a file's name to its SHA-256.

    Example:

    ```python
    made_from("runs/mine/preset")["model.weights.h5"]
    ```
    """
    files = {path for kind in (*_WEIGHTS, *_CONFIGS) for path in pathlib.Path(directory).glob(kind)}
    return {path.name: sha256(path) for path in sorted(files)}
