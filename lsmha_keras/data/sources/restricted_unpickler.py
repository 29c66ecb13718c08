"""Reads pickled arrays without running what a pickle could make Python run."""

import pickle

# What a pickled array is made of, under the names of NumPy 1 and 2.
_ALLOWED = {
    ("numpy", "ndarray"),
    ("numpy", "dtype"),
    ("numpy.core.multiarray", "_reconstruct"),
    ("numpy._core.multiarray", "_reconstruct"),
    ("_codecs", "encode"),  # bytes, in pickles that Python 3 wrote for Python 2
}


class RestrictedUnpickler(pickle.Unpickler):
    """Unpickles builtin containers, strings, numbers and NumPy arrays, and refuses all else.

    Args:
        file: binary file.

    Raises:
        pickle.UnpicklingError: from `load`, if the pickle names anything else.

    Example:
        >>> import io, pickle
        >>> RestrictedUnpickler(io.BytesIO(pickle.dumps({"a": [1, 2]}))).load()
        {'a': [1, 2]}
    """

    def __init__(self, file):
        # Python 2 wrote the CIFAR files: their strings are bytes.
        super().__init__(file, encoding="bytes")

    def find_class(self, module, name):
        """Refuses every global but the few that rebuild an array."""
        if (module, name) not in _ALLOWED:
            raise pickle.UnpicklingError(
                "only arrays, numbers, strings and containers are read from pickles. "
                f"Received: {module}.{name}"
            )
        return super().find_class(module, name)
