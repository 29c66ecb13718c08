"""Labelled series in csv files: a line for each time step."""

import csv
import itertools

import numpy as np

from lsmha_keras.data.sequences import SequenceDataset
from lsmha_keras.data.sources.text import csv_parts, label_order
from lsmha_keras.errors import InputError

# Whose series a line is, and of which class; all other columns are features.
_COLUMNS = ("series", "label")


def is_series_csv(path):
    """Returns whether a csv file, or one of a folder of them, has a column `series`."""
    for part in csv_parts(path).values():
        with part.open(encoding="utf-8-sig", errors="replace", newline="") as file:
            if "series" in next(csv.reader(file), []):
                return True
    return False


def open_series_csv(path, base):
    """Opens series of a csv file, or of a folder with one for each split.

    Args:
        path: `pathlib.Path` of a file, whose only split is "train", or of a folder with
            `train.csv`, `test.csv` and others. The first line names the columns: `series`, which
            holds the same for all time steps of a series, `label`, and the features. Lines come in
            the order of time.
        base: str, name of the split.

    Returns:
        A `SequenceDataset`; labels are the names of the classes, in the order of the alphabet, or
        of numbers, those of all splits.

    Raises:
        ValueError: if there is no such split, a column is missing, a value is no number, a series
            has two labels or comes in two parts, or series differ in length.
    """
    rows = {split: _read(part) for split, part in csv_parts(path, base).items()}
    names = sorted({label for _, _, labels in rows.values() for label in labels}, key=label_order)
    series, _, labels = rows[base]
    return SequenceDataset(series, [names.index(label) for label in labels], names, str(path))


def _read(path):
    """Reads one file: numbers `(series, time, features)`, names of features, labels."""
    with path.open(encoding="utf-8-sig", newline="") as file:
        try:
            reader = csv.DictReader(file)
            columns = list(reader.fieldnames or [])
            lines = list(enumerate(reader, 2))
        except (UnicodeDecodeError, csv.Error) as error:
            raise InputError(f"{path} is no csv file in UTF-8. Received: {error}") from error
    features = [column for column in columns if column not in _COLUMNS]
    missing = [column for column in _COLUMNS if column not in columns]
    if missing or not features:
        what = " and ".join(map(repr, missing)) or "column of a feature"
        raise InputError(
            f"{path} must have the columns 'series', 'label' and those of the features. Received: "
            f"no {what} among {', '.join(columns) or 'none'}"
        )
    values, labels, seen = [], [], set()
    for name, group in itertools.groupby(lines, key=lambda line: line[1]["series"]):
        group = list(group)
        first = group[0][0]
        own = {row["label"] for _, row in group}
        if name in seen or len(own) > 1 or not name or not all(own):
            raise InputError(
                f"The lines of a series must follow each other in {path} and have one label. "
                f"Received: series {name!r} with the labels {sorted(map(str, own))} from line "
                f"{first} on{', and before' if name in seen else ''}"
            )
        seen.add(name)
        values.append([_numbers(row, features, path, line) for line, row in group])
        labels.append(own.pop())
        if len(values[-1]) != len(values[0]):
            raise InputError(
                f"All series of {path} must have the same number of time steps: fill shorter ones "
                "up with one value, the `mask_value` of the model. Received: "
                f"{len(values[0])} and, from line {first} on, {len(values[-1])}"
            )
    if not values:
        raise InputError(f"{path} must hold a series. Received: no line after the first")
    return np.array(values, "float32"), features, labels


def _numbers(row, features, path, line):
    try:
        return [float(row[feature]) for feature in features]
    except (TypeError, ValueError) as error:
        bad = {feature: row[feature] for feature in features if not _is_number(row[feature])}
        raise InputError(
            f"Features must be numbers. Received: {bad} in line {line} of {path}"
        ) from error


def _is_number(value):
    try:
        float(value)
    except (TypeError, ValueError):
        return False
    return True
