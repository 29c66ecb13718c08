"""Text, JSON, csv files and Markdown tables: read with errors that name the file, written whole."""

import csv
import io
import json
import pathlib

from lsmha_keras.errors import InputError
from lsmha_keras.files import write_atomically

NOT_MEASURED = "not measured yet\n"


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


def read_rows(path, columns, exact=False):
    """Reads a csv file.

    Args:
        path: csv file.
        columns: names of columns that it must have; it may have more.
        exact: bool, whether it may have no others, nor another order. Defaults to `False`.

    Returns:
        A list of dicts of str, empty if there is no such file or nothing in it.

    Raises:
        ValueError: if a column is missing, or `exact` and the columns are others.

    Example:
        >>> read_rows("not_measured.csv", ["accuracy"])
        []
    """
    path = pathlib.Path(path)
    if not path.exists() or path.stat().st_size == 0:
        return []
    reader = csv.DictReader(io.StringIO(read_text(path), newline=""))
    found = reader.fieldnames or []
    if exact and list(found) != list(columns):
        raise InputError(
            f"The table must have the columns {','.join(columns)}; name another file. "
            f"Received: {path} with {','.join(found)}"
        )
    if missing := [name for name in columns if name not in found]:
        raise InputError(
            f"{path} must have the columns {', '.join(missing)}. Received: {', '.join(found)}"
        )
    return list(reader)


def write_rows(path, rows, columns=None):
    """Writes a csv file, whole or not at all.

    Args:
        path: csv file; an existing one is replaced.
        rows: iterable of dicts. A key that a row lacks, and `None`, become an empty cell.
        columns: names of the columns. Default: the keys of the rows, in the order in which they
            first appear.

    Raises:
        ValueError: if a row has a key that is not a column.

    Example:

    ```python
    write_rows("table.csv", [{"name": "a", "accuracy": 0.5}])
    ```
    """
    rows = list(rows)
    write_atomically(
        path, csv_text(rows, columns or list(dict.fromkeys(k for r in rows for k in r)))
    )


def csv_text(rows, columns, header=True):
    """Lays rows out as the text of a csv file.

    Args:
        rows: iterable of dicts, as for `write_rows`.
        columns: names of the columns.
        header: bool, whether the first line names the columns.

    Returns:
        str; every line ends with a single line feed.

    Example:
        >>> print(csv_text([{"name": "a", "accuracy": 0.5}], ["name", "accuracy"]), end="")
        name,accuracy
        a,0.5
    """
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, columns, lineterminator="\n")
    if header:
        writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


def markdown_table(header, rows):
    """Lays rows out as a Markdown table.

    Args:
        header: list of str.
        rows: list of lists of str.

    Returns:
        str that ends with a line break; without rows the words "not measured yet".

    Example:
        >>> print(markdown_table(["layout", "accuracy"], [["cct_2_3x2", "55.00"]]), end="")
        | layout | accuracy |
        |---|---|
        | cct_2_3x2 | 55.00 |
    """
    if not rows:
        return NOT_MEASURED
    lines = [header, *rows]
    text = [f"| {' | '.join(cell.replace('|', '/') for cell in line)} |\n" for line in lines]
    text.insert(1, "|---" * len(header) + "|\n")
    return "".join(text)
