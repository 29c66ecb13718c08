"""Imports optional packages."""

import importlib

from lsmha_keras.errors import PackageError


def needed_package(name, extra="export"):
    """Imports an optional package.

    Args:
        name: str, name of the module.
        extra: str, extra of this package that installs it.

    Returns:
        The module.

    Raises:
        ImportError: if it cannot be imported; says how to install it.

    Example:

    ```python
    onnxruntime = needed_package("onnxruntime")
    ```
    """
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise PackageError(
            f"The package {name} is needed and cannot be imported ({error}): "
            f'pip install "lsmha-keras[{extra}]"'
        ) from error
