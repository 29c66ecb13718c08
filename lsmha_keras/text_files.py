"""Reads text files, with errors that name them."""

import json
import pathlib

from lsmha_keras.errors import InputError


def read_text(path):
    """Reads a text file in UTF-8.

    Args:
        path: path of the file.

    Returns:
        str, with its line ends unchanged.

    Raises:
        OSError: if there is no such file, or it cannot be opened.
        ValueError: if it is not UTF-8.

    Example:

    ```python
    names = read_text("names.txt").splitlines()
    ```
    """
    try:
        return pathlib.Path(path).read_bytes().decode("utf-8")
    except UnicodeDecodeError as error:
        raise InputError(f"{path} is not a text file in UTF-8. Received: {error}") from error


def read_json(path):
    """Reads a JSON file.

    Args:
        path: path of the file.

    Returns:
        Its content: dict, list, str, number, bool or `None`.

    Raises:
        OSError: if there is no such file, or it cannot be opened.
        ValueError: if it is not JSON in UTF-8.

    Example:

    ```python
    accuracy = read_json("results.json")["accuracy"]
    ```
    """
    text = read_text(path)
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        raise InputError(f"{path} is not JSON. Received: {error}") from error
