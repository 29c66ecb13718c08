"""Finds and reads the TOML files of recipes and studies."""

import os
import pathlib
import tomllib

from lsmha_keras.training.nearest import nearest


def read_toml(path, from_dict):
    """Reads a file that is named after itself.

    Args:
        path: path of a TOML file.
        from_dict: function from nested dicts to a recipe or a study. A file without a `name` gives
            its own.

    Returns:
        What `from_dict` returns.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if it is no TOML, or `from_dict` refuses it; names the file.

    Example:

    ```python
    recipe = read_toml("recipe.toml", lsmha_keras.Recipe.from_dict)
    ```
    """
    path = pathlib.Path(path).expanduser()
    try:
        values = tomllib.loads(path.read_text(encoding="utf-8"))
        return from_dict({"name": path.stem, **values})
    except ValueError as error:  # also what `tomllib` and a wrong encoding raise
        raise ValueError(f"{path}: {error}") from error


def find_toml(name, folder, kind):
    """Finds a file by its path or by the name of one that comes with the package.

    Args:
        name: str or path.
        folder: `pathlib.Path` with the files that come with the package.
        kind: str, what it is, for the message: "recipe" or "study".

    Returns:
        A `pathlib.Path`.

    Raises:
        ValueError: if there is none, naming the nearest.

    Example:

    ```python
    find_toml("cct_2_3x2_h16_cifar100", lsmha_keras.presets.zoo_dir() / "recipes", "recipe")
    ```
    """
    path = pathlib.Path(os.fspath(name)).expanduser()
    if path.is_file():
        return path
    shipped = {path.stem: path for path in sorted(folder.glob("*.toml"))}
    if str(name) in shipped:
        return shipped[str(name)]
    raise ValueError(
        f"A {kind} is a TOML file or one of the names {', '.join(shipped)}"
        f"{nearest(name, shipped)}. Received: {kind}={str(name)!r}"
    )
