"""Imports a package that not every installation has."""

import importlib

from lsmha_keras.errors import PackageError


def needed_package(name, extra="export"):
    """Imports a package, or says how to install it.

    Args:
        name: str, of the module.
        extra: str, the extra of this package that installs it.

    Returns:
        The module.

    Raises:
        ImportError: if it is missing.

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
