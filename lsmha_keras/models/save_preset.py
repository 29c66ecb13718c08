"""Saves a preset whole or not at all."""

import contextlib
import json
import math
import pathlib

from lsmha_keras.checksums import write_checksums
from lsmha_keras.directory_lock import DirectoryLock
from lsmha_keras.files import fill_directory
from lsmha_keras.presets import ONNX


@contextlib.contextmanager
def save_preset(preset_dir, variables):
    """Yields a directory to save a preset to, which becomes `preset_dir` when it is complete.

    Files of another name that `preset_dir` holds stay, but for a `model.onnx`, which was made from
    the weights before. The checksums cover all of them.

    Args:
        preset_dir: path.
        variables: list of `keras.Variable` that are saved: they tell the room that is needed.

    Yields:
        `pathlib.Path`.

    Raises:
        OSError: if another process saves a preset there, or the disk has too little room;
            `preset_dir` is as it was.

    Example:

    ```python
    from lsmha_keras.models.save_preset import save_preset

    backbone = lsmha_keras.CCTBackbone.from_preset("cct_2_3x2")
    with save_preset("my_preset", backbone.variables) as directory:
        backbone.save_weights(directory / "model.weights.h5")
    ```
    """
    path = pathlib.Path(preset_dir)
    # HDF5 adds a few KiB for each variable and its groups. A crash of HDF5 costs more than refusing
    # a disk that has just enough room.
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
    """Writes float32, the dtype of the weights, for a policy of mixed precision.

    With that KerasHub's own loaders fail ("Invalid dtype: mixed_bfloat16"), and any float they load
    as what Keras is set to. It can go with the version in which `is_float_dtype` of KerasHub (0.32)
    takes the names of mixed policies.

    Args:
        path: of the config of a backbone; need not be there.
    """
    if not path.is_file():
        return
    saved = json.loads(path.read_text(encoding="utf-8"))
    dtype = saved["config"].get("dtype")
    policy = dtype.get("config", {}) if isinstance(dtype, dict) else {}
    if policy.get("name", "").startswith("mixed_"):
        policy["name"] = "float32"
        path.write_text(json.dumps(saved, indent=4), encoding="utf-8")
