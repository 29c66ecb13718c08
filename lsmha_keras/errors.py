"""Errors for mistakes that users can mend, and hints at the nearest name for their messages.

Every error here is an `LsmhaError`, and also of the built-in class that fits, so that
`except ValueError` catches it too. The command line prints an `LsmhaError` in one line; any other
error is a fault of this package, or of a library, and is shown with its traceback.
"""


class LsmhaError(Exception):
    """A mistake that the user of this package can mend; the message says how."""


class InputError(LsmhaError, ValueError):
    """An argument, a setting, or the content of a file or dataset is not valid."""

    # TensorFlow 2.21 raises errors inside a `tf.data` function again, with its source lines added.
    # It keeps the class if that takes a single message, which it finds out by this `__init__`.
    __init__ = Exception.__init__


class InputTypeError(LsmhaError, TypeError):
    """An argument has the wrong type."""


class ImageSizeError(InputError):
    """The images of a dataset differ in size, and no common size was given."""


class PackageError(LsmhaError, ImportError):
    """An optional package is missing or cannot be imported."""


class MissingFileError(LsmhaError, FileNotFoundError):
    """A file or folder does not exist."""


class StorageError(LsmhaError, OSError):
    """A file or folder cannot be written, or the system lacks a resource."""


class DirectoryInUseError(LsmhaError, BlockingIOError):
    """Another process is writing to the directory."""


class UnreachableError(LsmhaError, ConnectionError):
    """A machine or a hub does not answer."""


class RunError(LsmhaError, RuntimeError):
    """The work cannot run now, or has failed."""


def nearest(name, valid, count=1, cutoff=0.5):
    """Returns " (nearest: learning_rate)", or an empty text if no name is near.

    Args:
        name: the unknown name.
        valid: the valid names.
        count: int, how many are named at most.
        cutoff: float, the least likeness of a name that is near, from 0 to 1.

    Returns:
        str, for the end of a sentence in an error message.

    Example:
        >>> nearest("learning_rat", ["learning_rate", "weight_decay"])
        ' (nearest: learning_rate)'
    """
    import difflib  # a fifth of the time of `import lsmha_keras`, and rarely needed

    matches = difflib.get_close_matches(str(name), list(valid), n=count, cutoff=cutoff)
    return f" (nearest: {', '.join(matches)})" if matches else ""
