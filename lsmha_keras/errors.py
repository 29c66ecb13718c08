"""Errors for mistakes that users can mend, and hints at the nearest name for their messages.

Every error here is an `LsmhaError`, and also of the built-in class that fits, so that
`except ValueError` catches it too. The command line prints an `LsmhaError` in one line; any other
error is a fault of this package, or of a library, and is shown with its traceback.
"""

import difflib


class LsmhaError(Exception):
    """A mistake that the user of this package can mend; the message says how."""


class InputError(LsmhaError, ValueError):
    """An argument, a setting, or the content of a file or dataset cannot be used."""

    # TensorFlow 2.21 adds the lines of a `tf.data` function to an error inside it, and keeps the
    # class of those that it can make from a message: this is how it knows them.
    __init__ = Exception.__init__


class InputTypeError(LsmhaError, TypeError):
    """An argument is of a type that cannot be used."""


class ImageSizeError(InputError):
    """The images of a dataset have different sizes, and none was asked for."""


class PackageError(LsmhaError, ImportError):
    """An optional package is missing, or cannot be imported."""


class MissingFileError(LsmhaError, FileNotFoundError):
    """A file or folder that was named does not exist."""


class StorageError(LsmhaError, OSError):
    """A file or folder cannot be written, or the system lacks what is needed."""


class DirectoryInUseError(LsmhaError, BlockingIOError):
    """Another process writes to the directory."""


class UnreachableError(LsmhaError, ConnectionError):
    """A machine or a hub does not answer."""


class RunError(LsmhaError, RuntimeError):
    """What was asked for cannot run now, or was tried and failed."""


def nearest(name, valid):
    """Returns " (nearest: learning_rate)", or the empty text when nothing is near.

    Args:
        name: what was given.
        valid: the names that exist.

    Returns:
        str to put at the end of a sentence of an error message.

    Example:
        >>> nearest("learning_rat", ["learning_rate", "weight_decay"])
        ' (nearest: learning_rate)'
    """
    matches = difflib.get_close_matches(str(name), list(valid), n=1, cutoff=0.5)
    return f" (nearest: {matches[0]})" if matches else ""
