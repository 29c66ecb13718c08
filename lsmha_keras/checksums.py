"""SHA-256 checksums of a preset's files: written, and checked before weights are loaded."""

import hashlib
import pathlib
import re

from lsmha_keras.errors import InputError
from lsmha_keras.files import is_hidden, write_atomically

CHECKSUMS = "checksums.sha256"
# A preset's card is not listed: people edit it, on a hub for example, and it decides nothing about
# the model.
CARD = "README.md"


def sha256(path):
    """Returns the SHA-256 of a file as 64 hexadecimal digits.

    Args:
        path: path of the file.

    Returns:
        str.

    Raises:
        OSError: if the file cannot be read.

    Example:
        >>> write_atomically("empty.txt", "")
        >>> sha256("empty.txt")[:8]
        'e3b0c442'
    """
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def write_checksums(directory):
    """Writes `checksums.sha256`, which `sha256sum --check` reads.

    Args:
        directory: path. All files below it are listed, except hidden ones, cards (`README.md`) and
            the list itself.

    Raises:
        OSError: if a file cannot be read, or the list cannot be written.

    Example:

    ```python
    write_atomically("model.txt", "weights")
    write_checksums(".")
    ```
    """
    directory = pathlib.Path(directory)
    left_out = (CHECKSUMS, CARD)
    files = sorted(
        path
        for path in directory.rglob("*")
        if path.is_file() and path.name not in left_out and not is_hidden(path.name)
    )
    lines = [f"{sha256(path)}  {path.relative_to(directory).as_posix()}\n" for path in files]
    write_atomically(directory / CHECKSUMS, "".join(lines))


def verify_checksums(directory):
    """Checks every file listed in a preset's `checksums.sha256`.

    A directory without that file, such as one that KerasHub wrote, passes unchecked.

    Args:
        directory: path of the preset.

    Raises:
        ValueError: if a file is missing or differs (the message names it), or the list is damaged.
    """
    directory = pathlib.Path(directory)
    for name, checksum in _read_checksums(directory).items():
        _verify(directory / name, checksum)


def verify_file(path):
    """Checks one file against the `checksums.sha256` beside it, if it is listed there.

    Args:
        path: path of the file.

    Raises:
        ValueError: if the file is listed and missing or different, or the list is damaged.
    """
    path = pathlib.Path(path)
    if checksum := _read_checksums(path.parent).get(path.name):
        _verify(path, checksum)


def _read_checksums(directory):
    path = directory / CHECKSUMS
    if not path.is_file():
        return {}
    lines = path.read_text(encoding="utf-8").splitlines()
    if broken := [line for line in lines if not re.fullmatch(r"[0-9a-f]{64}  \S.*", line)]:
        raise InputError(f"{path} is damaged. Received: the line {broken[0]!r}")
    return {line[66:]: line[:64] for line in lines}


def _verify(path, checksum):
    if not path.is_file():
        raise InputError(
            f"The preset in {path.parent} is incomplete; copy or download it again. "
            f"Received: no file {path.name}"
        )
    if sha256(path) != checksum:
        raise InputError(
            f"{path} was changed or damaged after it was saved: its SHA-256 is not the one in "
            f"{CHECKSUMS}. Copy or download the preset again, or, if you changed the file on "
            "purpose, call `lsmha_keras.presets.write_checksums` on the directory. "
            f"Received: {path.name}"
        )
