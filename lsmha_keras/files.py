"""Writes files and directories atomically, with checks of free space and errors that name them."""

import contextlib
import errno
import os
import pathlib
import shutil
import tempfile
import uuid

from lsmha_keras.errors import InputError, StorageError

# Name of the file that marks a directory as ours.
MARK = ".lsmha"
_NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
# Folders that systems, archives and synchronised drives leave behind and do not hide by a dot.
_SYSTEM = {"__macosx", "@eadir", "$recycle.bin", "system volume information", "lost+found"}
_SYSTEM |= {"thumbs.db", "desktop.ini"}


def is_hidden(name):
    """Returns whether a file or folder is hidden, or was made by a system or a tool.

    That is every name that begins with a dot (`._a.png`, `.DS_Store`, `.ipynb_checkpoints`), and
    names such as `__MACOSX`, `Thumbs.db` and `@eaDir`.

    Args:
        name: str, the last part of a path.

    Returns:
        bool.

    Example:
        >>> is_hidden("._0.png"), is_hidden("0.png")
        (True, False)
    """
    return name.startswith(".") or name.lower() in _SYSTEM


def check_room(path, needed):
    """Raises an error if the disk has too little space for a file.

    Args:
        path: path of the file or directory to write.
        needed: int, bytes.

    Raises:
        OSError: names the path, the bytes needed and the bytes that are free.

    Example:
        >>> check_room("model.weights.h5", needed=1000)
    """
    usage = shutil.disk_usage(_existing(pathlib.Path(path).absolute()))
    if usage.total and needed > usage.free:  # some network drives report a size of zero
        raise _no_room(path, errno.ENOSPC, needed)


def write_atomically(path, content, needed=None):
    """Writes a file so that readers see either the old or the complete new one.

    This also holds if the process is killed. If the disk is full, the old file stays and nothing
    else is left behind.

    Args:
        path: path of the file.
        content: str (written as UTF-8), bytes, or a function that is called with an open binary
            file.
        needed: int, size of the file in bytes, or None if it is unknown or follows from `content`.

    Raises:
        OSError: if it cannot be written; names the file, and on a full disk the space needed.

    Example:
        >>> write_atomically("note.txt", "done")
    """
    path = pathlib.Path(path)
    if isinstance(content, str):
        content = content.encode()
    if isinstance(content, bytes):
        needed = len(content)
    # A unique name, as several processes may write the same file.
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}.lsmha-tmp")
    with named_errors(path, needed):
        if needed is not None:
            check_room(path, needed)
        try:
            with temporary.open("wb") as file:
                file.write(content) if isinstance(content, bytes) else content(file)
                file.flush()
                os.fsync(file.fileno())
            _move(temporary, path)
        finally:
            with contextlib.suppress(OSError):  # moved, or the error above tells more
                temporary.unlink(missing_ok=True)


def append_atomically(path, text):
    r"""Appends to a file; if that fails, the file does not change.

    Args:
        path: path of the file, made if missing.
        text: str.

    Raises:
        OSError: if it cannot be written; names the file.

    Example:
        >>> append_atomically("log.csv", "1,2\n")
    """
    path = pathlib.Path(path)
    content = text.encode()
    with named_errors(path, len(content)), path.open("ab") as file:
        size = file.tell()
        try:
            file.write(content)
            file.flush()
        except OSError:
            os.truncate(path, size)
            raise


@contextlib.contextmanager
def fill_directory(path, needed=0, replace=False):
    """Yields an empty directory whose files are moved to `path` when all are written.

    If `path` does not exist, it appears as a whole. If it does, files are replaced one by one and
    the others stay. On an error `path` does not change, and nothing is left behind.

    Args:
        path: path of the directory; missing parents are made.
        needed: int, size of the files in bytes. HDF5 crashes on a full disk, so give a number for
            weights.
        replace: bool, whether to remove everything in `path` when the new files are complete.

    Yields:
        `pathlib.Path` of the directory to write to.

    Raises:
        OSError: if something cannot be written; names `path`, and on a full disk the space needed.

    Example:

    ```python
    with fill_directory("runs/preset") as directory:
        (directory / "config.json").write_text("{}")
    ```
    """
    path = pathlib.Path(path)
    with named_errors(path, needed):
        path.parent.mkdir(parents=True, exist_ok=True)
        # On the same file system as `path`, which may be a mounted one.
        inside = path if path.is_dir() and not replace else path.absolute().parent
        temporary = inside / f".{path.absolute().name}.lsmha-tmp"
        shutil.rmtree(temporary, ignore_errors=True)  # of a process that was killed
        _reserve(path, inside, needed)
        temporary.mkdir()
        try:
            yield temporary
            _sync(temporary)
            if path.is_dir() and not replace:
                _merge(temporary, path)
            else:
                if path.is_dir():
                    shutil.rmtree(path)
                _move(temporary, path)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)


def writable_dir(path):
    """Makes a directory and checks that files can be written to it.

    Args:
        path: the directory; missing parents are made too.

    Returns:
        The directory as a `pathlib.Path`.

    Raises:
        OSError: if it cannot be made or written to.

    Example:

    ```python
    output = writable_dir("runs/digits")
    ```
    """
    path = pathlib.Path(path).expanduser()
    try:
        path.mkdir(parents=True, exist_ok=True)
        # Permission bits do not show that a mount is read-only: write something.
        tempfile.TemporaryFile(dir=path).close()
    except OSError as error:
        raise StorageError(
            f"Cannot write to the directory {path} ({error.strerror}). Received: {path}"
        ) from error
    return path


def claim_directory(path, kind, is_ours=lambda path: False):
    """Makes a directory and marks it as the output of a run, study or analysis of this package.

    Only files in a marked directory may be removed or overwritten later.

    Args:
        path: path of the directory.
        kind: str, such as "run", use of the directory.
        is_ours: function from the path to bool; it recognises directories from before there was a
            mark.

    Returns:
        The directory as a `pathlib.Path`.

    Raises:
        OSError: if it cannot be written to.
        ValueError: if it holds files and has no mark, or is marked as something else.

    Example:

    ```python
    directory = claim_directory("runs/mine", "run")
    ```
    """
    path = writable_dir(path)
    mark = path / MARK
    if mark.exists():
        found = mark.read_text(encoding="utf-8").split("\n")[0]
        if found != kind:
            raise InputError(
                f"The directory belongs to another kind of work ({found}, not {kind}); choose "
                f"another one. Received: {path}"
            )
        return path
    others = sorted(file.name for file in path.iterdir() if not is_hidden(file.name))
    if others and not is_ours(path):
        listed = ", ".join(others[:5]) + (", ..." if len(others) > 5 else "")
        raise InputError(
            f"The output directory holds files that were not written there by a {kind} of "
            f"lsmha_keras ({listed}); choose an empty or a new one. Received: {path}"
        )
    write_atomically(mark, f"{kind}\nWritten by lsmha_keras, which clears this folder if asked.\n")
    return path


def remove_leftovers(*directories):
    """Removes unfinished files of processes that were killed.

    Args:
        *directories: paths to which no other process writes.

    Example:

    ```python
    remove_leftovers("runs/mine", "runs/mine/checkpoints")
    ```
    """
    for directory in map(pathlib.Path, directories):
        for path in directory.glob(".*.lsmha-tmp"):
            if path.is_dir():
                shutil.rmtree(path, ignore_errors=True)
            else:
                path.unlink(missing_ok=True)


@contextlib.contextmanager
def named_errors(path, needed=None):
    """Turns errors of the operating system into one line that names the file.

    Args:
        path: path of the file.
        needed: int, bytes that it takes, or None.

    Raises:
        OSError: instead of the one that was raised inside.

    Example:

    ```python
    with named_errors("table.csv"), open("table.csv", "w") as file:
        file.write("1,2")
    ```
    """
    try:
        yield
    except OSError as error:
        if error.strerror is None:  # raised by this package or a library, with its own message
            raise
        if error.errno in _NO_ROOM:
            raise _no_room(path, error.errno, needed) from error
        named = StorageError(f"Cannot write {path} ({error.strerror}). Received: {path}")
        named.errno = error.errno
        raise named from error


def _no_room(path, number, needed):
    free = shutil.disk_usage(_existing(pathlib.Path(path).absolute())).free
    room = f"{_size(needed)} needed, {_size(free)} free" if needed else f"{_size(free)} free"
    cause = {
        errno.ENOSPC: "the disk is full",
        errno.EDQUOT: "the disk quota is used up",
        errno.EFBIG: "the file is larger than the limit of this process or file system",
    }[number]
    error = StorageError(
        f"Cannot write {path}: {cause} ({room}). What was there before is unchanged."
    )
    error.errno = number
    return error


def _existing(path):
    return next(folder for folder in (path, *path.parents) if folder.exists())


def _size(count):
    return f"{count:,} bytes" if count < 10**5 else f"{count / 10**6:,.1f} MB"


def _reserve(path, folder, needed):
    """Checks that `needed` bytes can be allocated, within quotas and limits of the process, too."""
    if not needed:
        return
    check_room(path, needed)
    if not hasattr(os, "posix_fallocate"):
        return
    with tempfile.TemporaryFile(dir=folder) as file:
        try:
            os.posix_fallocate(file.fileno(), 0, needed)
        except OSError as error:
            # Other errors mean that the file system does not support `fallocate`.
            if error.errno in _NO_ROOM:
                raise _no_room(path, error.errno, needed) from error


def _merge(source, target):
    """Moves all files below one directory to the same places below another."""
    for path in sorted(path for path in source.rglob("*") if path.is_file()):
        place = target / path.relative_to(source)
        place.parent.mkdir(parents=True, exist_ok=True)
        os.replace(path, place)
    _sync_directory(target)


def _move(temporary, path):
    """Moves a finished file or directory into place, and syncs the move to disk."""
    os.replace(temporary, path)
    _sync_directory(path.absolute().parent)


def _sync(directory):
    for path in directory.rglob("*"):
        if path.is_file():
            with path.open("rb+") as file:
                os.fsync(file.fileno())


def _sync_directory(path):
    if os.name == "posix":  # Windows cannot open directories
        directory = os.open(path, os.O_RDONLY)
        try:
            os.fsync(directory)
        finally:
            os.close(directory)
