"""Reads and writes csv files of measurements."""

import csv
import io
import pathlib

from lsmha_keras.files import write_atomically


def read_rows(path, columns):
    """Reads a table of measurements.

    Args:
        path: csv file.
        columns: names of columns that it must have; it may have more.

    Returns:
        A list of dicts of str, empty if there is no such file.

    Raises:
        ValueError: if a column is missing.

    Example:
        >>> read_rows("not_measured.csv", ["accuracy"])
        []
    """
    path = pathlib.Path(path)
    if not path.exists():
        return []
    with path.open(newline="", encoding="utf-8") as file:
        reader = csv.DictReader(file)
        found = reader.fieldnames or []
        if missing := [name for name in columns if name not in found]:
            raise ValueError(
                f"{path} must have the columns {', '.join(missing)}. Received: {', '.join(found)}"
            )
        return list(reader)


def write_rows(path, columns, rows):
    """Writes a table, whole or not at all.

    Args:
        path: csv file; one that is there is replaced.
        columns: names of its columns.
        rows: list of dicts with these keys.

    Example:

    ```python
    write_rows("table.csv", ["name", "accuracy"], [{"name": "a", "accuracy": 0.5}])
    ```
    """
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, columns, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    write_atomically(path, text.getvalue())
