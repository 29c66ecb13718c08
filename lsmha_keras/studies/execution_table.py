"""The table of a study's executions."""

import csv
import io
import json
import pathlib
import warnings

from lsmha_keras.files import write_atomically

COLUMNS = (
    "study",
    "trial",
    "execution",
    "status",
    "score",
    "val_accuracy",
    "epochs",
    "seed",
    "train_seconds",
    "parameters",
    "multiply_adds",
    "latency_ms",
    "memory_mib",
    "shp_snr",
    "shp_readout_accuracy",
    "backend",
    "machine",
    "cores",
    "versions",
    "date",
    "error",
)
_TEXT = ("study", "trial", "status", "backend", "machine", "cores", "versions", "date", "error")


def collect_executions(directory):
    """Reads what the executions of a study have left.

    Args:
        directory: path of the study's directory.

    Returns:
        list of dicts, the rows of the finished executions by trial and execution. A file that
        cannot be read is skipped, with a warning that names it.

    Example:

    ```python
    rows = collect_executions("runs/digits_heads")
    ```
    """
    rows = []
    for path in pathlib.Path(directory).glob("trial_*/execution_*/execution.json"):
        try:
            row = json.loads(path.read_text(encoding="utf-8"))
            _check_names(row)
        except (OSError, ValueError, KeyError, TypeError) as error:
            warnings.warn(f"{path} is skipped: {error!r}", stacklevel=2)
        else:
            rows.append(row)
    return sorted(rows, key=lambda row: (row["trial"], row["execution"]))


def write_table(rows, path):
    """Writes rows as csv; a reader sees the old file or the new one.

    Args:
        rows: list of dicts. Keys that begin with "hp." become the last columns.
        path: path of the file.

    Example:

    ```python
    write_table(collect_executions(directory), directory / "executions.csv")
    ```
    """
    path = pathlib.Path(path)
    own = sorted({key for row in rows for key in row if key.startswith("hp.")})
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, [*COLUMNS, *own], lineterminator="\n", extrasaction="ignore")
    writer.writeheader()
    writer.writerows([{key: _flat(value) for key, value in row.items()} for row in rows])
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, text.getvalue())


def read_table(path):
    """Reads what `write_table` wrote.

    Args:
        path: path of the csv file.

    Returns:
        list of dicts; numbers are numbers, True and False bools, empty cells None.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if it is not the table of a study, naming the columns it lacks, or a line is
            torn, naming it.

    Example:

    ```python
    rows = read_table("tuning/results/cifar100_heads.csv")
    ```
    """
    with open(path, encoding="utf-8", newline="") as file:
        reader = csv.DictReader(file)
        missing = [name for name in COLUMNS if name not in (reader.fieldnames or ())]
        if missing:
            raise ValueError(
                f"A study's table has the columns {', '.join(COLUMNS)}. "
                f"Received: {path} without {', '.join(missing)}"
            )
        rows = []
        for row in reader:
            if None in row or None in row.values():
                raise ValueError(
                    f"Every line must have {len(reader.fieldnames)} cells, as the header has: "
                    f"write the table again. Received: {path}, line {reader.line_num}"
                )
            rows.append({key: _typed(key, value) for key, value in row.items()})
        return rows


def _check_names(row):
    """Refuses what the table could not sort."""
    kinds = {"trial": str, "execution": int, "status": str}
    if bad := [name for name, kind in kinds.items() if not isinstance(row[name], kind)]:
        raise ValueError(f"{bad[0]}={row[bad[0]]!r} is not {kinds[bad[0]].__name__}")


def _flat(value):
    return " ".join(value.split()) if isinstance(value, str) else value


def _typed(key, value):
    if value == "":
        return None
    if key in _TEXT:
        return value
    if value in ("True", "False"):
        return value == "True"
    if "_" in value:  # Python reads the text 1_2 as twelve.
        return value
    for kind in (int, float):
        try:
            return kind(value)
        except ValueError:
            continue
    return value
