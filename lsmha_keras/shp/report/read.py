"""Reads reports on single-head performance back, to show them beside another one."""

import pathlib

import numpy as np

from lsmha_keras.errors import InputError
from lsmha_keras.shp.shp_result import SHPResult
from lsmha_keras.text_files import read_json


def read_report(folder, threshold=0.3):
    """Reads the results of a report.

    Args:
        folder: folder that `write_report` wrote.
        threshold: float, of the results.

    Returns:
        The title, and `{block: SHPResult}`.

    Raises:
        ValueError: if the folder holds no report.

    Example:

    ```python
    title, results = read_report("runs/shp")
    ```
    """
    folder = pathlib.Path(folder)
    tables, arrays = folder / "statistics.json", folder / "shp.npz"
    if not (tables.is_file() and arrays.is_file()):
        raise InputError(
            "There is no report: `lsmha shp` writes statistics.json and shp.npz. "
            f"Received: {folder}"
        )
    found = read_json(tables)
    with np.load(arrays) as file:
        names = file["label_names"].tolist() if "label_names" in file else None
        results = {
            row["block"]: SHPResult(
                row["block"],
                file[f"trained/block_{row['block']}"],
                file["label_counts"],
                row["pooling"],
                threshold,
                names,
                row["readout_accuracy"],
            )
            for row in found["blocks"]
            if row["variant"] == "trained"
        }
    return found["title"], results


def read_beside(folders, threshold=0.3):
    """Reads reports on other models.

    Args:
        folders: list of folders that `write_report` wrote.
        threshold: float, of the results.

    Returns:
        A dict from title to `{block: SHPResult}`.

    Raises:
        ValueError: if a folder holds no report, or two have the same title.
    """
    beside = {}
    for folder in folders:
        title, results = read_report(folder, threshold)
        if title in beside:
            raise InputError(
                f"Two reports have the same title and could not be told apart. Received: {title!r}"
            )
        beside[title] = results
    return beside
