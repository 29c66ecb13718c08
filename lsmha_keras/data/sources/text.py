"""Labelled texts in csv files, or in folders of text files."""

import csv
import pathlib

import numpy as np

from lsmha_keras.data.sequences import SequenceDataset
from lsmha_keras.errors import InputError, nearest
from lsmha_keras.files import is_hidden

# Name -> folder below the data's, the column of the labels, and the names of the classes, if they
# are other than the labels.
KNOWN = {
    "trec": ("trec", "coarse", None),
    "trec_fine": ("trec", "fine", None),
    "sst2": ("sst2", "label", ["negative", "positive"]),
}


def what_to_provide(name):
    """Returns what the data folder must hold for a known name, for messages."""
    folder, label, _ = KNOWN[name]
    return f"a folder {folder!r} with train.csv and test.csv, of the columns {label!r} and 'text'"


def find_text(name, data_dir):
    """Returns the folder of a known name, a `pathlib.Path`, or `None`."""
    folder = KNOWN[name][0]
    root = pathlib.Path(data_dir or ".")
    found = [path for path in (root / folder, root / "text" / folder) if find_csv_parts(path)]
    return found[0] if found else None


def find_csv_parts(path):
    """Returns the csv files of a folder by the name of their split, a dict, or an empty one."""
    return {part.stem: part for part in _files(path, ".csv")} if path.is_dir() else {}


def csv_parts(path, base=None, name=None):
    """Returns the csv files of a folder, or a single one, by the name of their split.

    Args:
        path: `pathlib.Path`.
        base: str, a split that there must be, or `None`.
        name: str for messages; `None` for the path.

    Raises:
        ValueError: if there is no such split.
    """
    parts = {"train": path} if path.is_file() else find_csv_parts(path)
    if base is not None and base not in parts:
        raise InputError(
            f"{name or str(path)!r} has the splits {', '.join(parts)}{nearest(base, parts)}. "
            f"Received: split={base!r}"
        )
    return parts


def open_known_text(name, path, base):
    """Opens one of the known datasets; see `open_csv`."""
    _, label, class_names = KNOWN[name]
    return open_csv(path, base, label, class_names, name)


def open_csv(path, base, label="label", class_names=None, name=None):
    """Opens texts of a csv file, or of a folder with one for each split.

    Args:
        path: `pathlib.Path` of a file, whose only split is "train", or of a folder with
            `train.csv`, `test.csv` and others. The first line names the columns, `label` and `text`
            among them.
        base: str, name of the split.
        label: str, the column of the labels.
        class_names: list of str, the classes by number, for labels "0", "1" and so on; `None`: the
            labels are the names of the classes, in the order of the alphabet, or of numbers. Those
            of all splits count, so that they agree on the classes.
        name: str for messages; `None` for the path.

    Returns:
        A `SequenceDataset`.

    Raises:
        ValueError: if there is no such split, a column is missing (the message lists the columns
            found), a line has no text, or a label is not a class name.
    """
    parts = csv_parts(path, base, name)
    rows = {split: _read(part, label) for split, part in parts.items()}
    if class_names is None:
        classes = sorted({own for part in rows.values() for own, _ in part}, key=label_order)
        class_names = classes
    else:
        classes = [str(number) for number in range(len(class_names))]
    index = {own: number for number, own in enumerate(classes)}
    for line, (own, _) in enumerate(rows[base], 2):
        if own not in index:
            raise InputError(
                f"Labels must be one of {', '.join(classes)}. Received: {own!r} in line {line} of "
                f"{parts[base]}"
            )
    labels = np.array([index[own] for own, _ in rows[base]], "int64")
    texts = [text for _, text in rows[base]]
    return SequenceDataset(texts, labels, class_names, name or str(path))


def _read(path, label):
    """Reads the labels and texts of a csv file, a list of pairs of str."""
    try:
        # Spreadsheets put a byte order mark in front, which the first column's name would keep.
        with path.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.DictReader(file)
            columns = list(reader.fieldnames or [])
            wanted = (label, "text")
            if missing := [column for column in wanted if column not in columns]:
                raise InputError(
                    f"{path} must have the columns {' and '.join(map(repr, wanted))}. Received: "
                    f"no {' and '.join(map(repr, missing))} among {', '.join(columns) or 'none'}"
                )
            rows = [(row[label], row["text"]) for row in reader]
    except (UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"{path} is no csv file in UTF-8. Received: {error}") from error
    for line, (own, text) in enumerate(rows, 2):
        if not own or not (text or "").strip():
            raise InputError(
                f"Each line of {path} must have a label and a text. Received: label {own!r} and "
                f"text {text!r} in line {line}"
            )
    return rows


def label_order(label):
    """Key to sort labels by: as numbers where they are, else by the alphabet, after these."""
    return (0, int(label), label) if label.isdecimal() else (1, 0, label)


def find_text_folder(path):
    """Returns whether a folder, or its splits, hold folders of `.txt` files, one for each class."""
    return path.is_dir() and (
        _has_classes(path) or any(_has_classes(folder) for folder in _folders(path))
    )


def _has_classes(path):
    return any(_files(folder, ".txt") for folder in _folders(path))


def open_text_folder(path, base):
    """Opens a folder of text files: `<class>/*.txt`, or `<split>/<class>/*.txt`.

    Args:
        path: `pathlib.Path`. A folder of classes has the split "train" only.
        base: str, name of the split.

    Returns:
        A `SequenceDataset`; the classes are the names of the folders, in the order of the alphabet.

    Raises:
        ValueError: if there is no such split, or a file is empty or not in UTF-8.
    """
    splits = {"train": path} if _has_classes(path) else {p.name: p for p in _folders(path)}
    if base not in splits:
        raise InputError(
            f"{str(path)!r} has the splits {', '.join(splits)}{nearest(base, splits)}. "
            f"Received: split={base!r}"
        )
    classes = sorted({folder.name for split in splits.values() for folder in _folders(split)})
    texts, labels = [], []
    for number, own in enumerate(classes):
        folder = splits[base] / own
        for file in _files(folder, ".txt") if folder.is_dir() else []:
            texts.append(_read_text(file))
            labels.append(number)
    return SequenceDataset(texts, np.array(labels, "int64"), classes, str(path))


def _folders(path):
    return sorted(f for f in path.iterdir() if f.is_dir() and not is_hidden(f.name))


def _files(path, suffix):
    return sorted(f for f in path.iterdir() if f.suffix == suffix and not is_hidden(f.name))


def _read_text(file):
    try:
        text = file.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise InputError(f"Texts must be in UTF-8. Received: {file} ({error})") from error
    if not text.strip():
        raise InputError(f"A text must have a word. Received: {file}, which is empty")
    return text
