"""Tells whether a dataset can be opened without downloading anything."""

import importlib.util
import os
import pathlib

from lsmha_keras.data.sources import cifar


def data_at_hand(name, data_dir=None):
    """Tells whether a dataset can be opened without downloading anything.

    Args:
        name: what `lsmha_keras.open_dataset` takes.
        data_dir: folder that holds the data. Default: the environment variable LSMHA_DATA_DIR.

    Returns:
        bool.

    Example:
        >>> data_at_hand("no_such_file.npz")
        False
    """
    name = os.fspath(name)
    data_dir = data_dir or os.environ.get("LSMHA_DATA_DIR") or None
    if name == "digits":  # part of scikit-learn
        return importlib.util.find_spec("sklearn") is not None
    if name in ("cifar10", "cifar100") and cifar.find_cifar(name, data_dir):
        return True
    # TensorFlow Datasets keeps `mnist:3.0.1` in `mnist/3.0.1`.
    folder = pathlib.Path(data_dir or ".") / name.partition(":")[0]
    return pathlib.Path(name).exists() or folder.exists()
