"""What this package raises for mistakes that its user can mend.

Every error here is an `LsmhaError`, and also of the built-in class that fits, so that
`except ValueError` catches it too. The command line prints an `LsmhaError` in one line; any other
error is a fault of this package, or of a library, and is shown with its traceback.
"""


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
