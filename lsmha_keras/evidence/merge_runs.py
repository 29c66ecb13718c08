"""Puts training runs into a table."""

from lsmha_keras.evidence.csv_rows import read_rows, write_rows
from lsmha_keras.evidence.run_row import COLUMNS


def merge_runs(path, rows):
    """Puts training runs into a table; one of the same name and seed is replaced in its place.

    Args:
        path: csv file, made if it does not exist.
        rows: list of dicts, as `run_row` returns them.

    Raises:
        ValueError: if the file is another table.

    Example:

    ```python
    merge_runs("layouts.csv", [run_row("runs/mine")])
    ```
    """
    merged = {_key(row): row for row in [*read_rows(path, COLUMNS), *rows]}
    write_rows(path, COLUMNS, merged.values())


def _key(row):
    return row["name"], str(row["seed"])
