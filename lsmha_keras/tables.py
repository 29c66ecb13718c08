"""Tables: csv files that are read and written whole, and Markdown."""

import csv
import io
import pathlib

from lsmha_keras.errors import InputError
from lsmha_keras.files import write_atomically
from lsmha_keras.text_files import read_text

NOT_MEASURED = "not measured yet\n"


def read_rows(path, columns):
    """Reads a csv file.

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
    reader = csv.DictReader(io.StringIO(read_text(path), newline=""))
    found = reader.fieldnames or []
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
