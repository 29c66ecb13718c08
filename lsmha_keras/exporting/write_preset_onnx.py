"""Writes the ONNX file of a preset."""

import pathlib
import tempfile

from lsmha_keras import presets
from lsmha_keras.exporting.export import export
from lsmha_keras.files import write_atomically


def write_preset_onnx(directory):
    """Writes a preset's `model.onnx` and updates the checksums.

    Args:
        directory: path of the preset.

    Returns:
        The `pathlib.Path` of the file.

    Raises:
        ImportError: if a package is missing.
        OSError: if it cannot be written.
        ValueError: if the preset cannot be exported; it is not changed.

    Example:

    ```python
    write_preset_onnx("runs/mine/preset")
    ```
    """
    directory = pathlib.Path(directory)
    with tempfile.TemporaryDirectory() as folder:
        made = export(directory, "onnx", pathlib.Path(folder) / "made") / presets.ONNX
        write_atomically(directory / presets.ONNX, made.read_bytes())
    presets.write_checksums(directory)
    return directory / presets.ONNX
