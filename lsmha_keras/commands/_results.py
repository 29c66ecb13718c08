"""The csv file of --results: one row per measurement, with machine, versions and date."""

import datetime
import math
import pathlib

from lsmha_keras.files import append_atomically
from lsmha_keras.text_files import csv_text, read_rows

# What `append_rows` adds to each row.
SURROUNDINGS = ("backend", "machine", "versions", "date")
COLUMNS = (
    "preset",
    "dataset",
    "split",
    "num_images",
    "accuracy",
    "top5_accuracy",
    "loss",
    "seconds",
    *SURROUNDINGS,
)


def check_header(path, columns=COLUMNS):
    """Checks the columns of an existing table.

    Args:
        path: path of the csv file; it need not exist.
        columns: names that the header must have.

    Raises:
        ValueError: if the file has another header.
    """
    read_rows(path, columns, exact=True)


def append_row(path, preset, dataset, split, figures, seconds):
    """Appends one measurement, with a header when the file is new.

    Args:
        path: the csv file.
        preset: name or directory of the model.
        dataset: name of the dataset.
        split: str, the split of the dataset.
        figures: dict with `num_images`, `accuracy`, `top5_accuracy` and `loss`.
        seconds: float, wall-clock time of the measurement.
    """
    row = {
        "preset": preset,
        "dataset": dataset,
        "split": split,
        **figure_cells(figures),
        "seconds": f"{seconds:.1f}",
    }
    append_rows(path, COLUMNS, [row])


def append_rows(path, columns, rows):
    """Appends rows with machine, versions and date, after a header if the file is new.

    Args:
        path: the csv file.
        columns: names of the columns.
        rows: list of dictionaries with the other columns.
    """
    path = pathlib.Path(path).expanduser()
    is_new = not path.exists() or path.stat().st_size == 0
    surroundings = _surroundings()
    rows = [{**row, **surroundings} for row in rows]
    append_atomically(path, csv_text(rows, columns, header=is_new))


def figure_cells(figures):
    """Formats the figures of `lsmha_keras.evaluate`; a NaN becomes an empty cell.

    Args:
        figures: dictionary with `num_images`, `accuracy`, `top5_accuracy` and `loss`.

    Returns:
        A dictionary of cells.
    """
    names = ("accuracy", "top5_accuracy", "loss")
    cells = {name: "" if math.isnan(figures[name]) else f"{figures[name]:.4f}" for name in names}
    return {"num_images": int(figures["num_images"]), **cells}


def _surroundings():
    import keras

    from lsmha_keras.training.devices import describe_hardware, describe_versions

    return {
        "backend": keras.backend.backend(),
        "machine": describe_hardware(),
        "versions": " ".join(f"{name}={version}" for name, version in describe_versions().items()),
        "date": datetime.date.today().isoformat(),
    }
