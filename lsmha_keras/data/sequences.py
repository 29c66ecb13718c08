"""Labelled texts and series with random access."""

import numpy as np

from lsmha_keras.data.datasets import ImageDataset, check_labels
from lsmha_keras.errors import InputError
from lsmha_keras.sample_checks import check_finite


class SequenceDataset(ImageDataset):
    """Labelled texts, or series of equal length, in one array, which is not copied.

    What holds for images holds for them: `len()`, `.labels`, `.class_names`, `.select(rows)` and
    `.load(rows)`. `image_shape` is the shape of one: `()` of a text, `(time, features)` of series.

    Args:
        values: list of str, or `(series, time, features)` numbers.
        labels: `(n,)` integers in `0 .. len(class_names) - 1`.
        class_names: list of str.
        name: str, used in error messages.

    Raises:
        ValueError: if there are no labels, a label is out of range, there is not one label for
            each, or series have another rank or hold NaN or infinity.

    Example:
        >>> dataset = SequenceDataset(["a cat", "a dog"], [0, 1], ["cat", "dog"])
        >>> dataset.load([1]).tolist()
        ['a dog']
    """

    def __init__(self, values, labels, class_names, name="sequences"):
        values = _texts(values) if _is_texts(values) else _series(values, name)
        if len(values) != len(labels):
            raise InputError(
                f"{name!r} must have one label for each sequence. "
                f"Received: {len(values)} sequences, {len(labels)} labels"
            )
        self.name = name
        self.class_names = [str(class_name) for class_name in class_names]
        self.labels = check_labels(labels, len(self.class_names), name)
        self.image_size, self.image_shape = None, values.shape[1:]
        self.dtype = values.dtype
        self._values = values
        self._rows = np.arange(len(values))

    @property
    def is_text(self):
        """Whether these are texts and no series."""
        return self.dtype == object

    def __repr__(self):
        kind = "texts" if self.is_text else f"series {self.image_shape}"
        return f"<{type(self).__name__} {self.name!r}: {len(self)} {kind}>"

    def load(self, indices):
        """Reads texts, `(n,)` of str in an array of objects, or series, float32.

        Args:
            indices: `(n,)` integers in `0 .. len(self) - 1`.
        """
        return self._read(self._rows[np.asarray(indices, dtype="int64")])

    def _read(self, rows):
        return self._values[rows]

    @classmethod
    def joined(cls, parts):
        """Joins several datasets of equal class names into one, for splits such as "train+test"."""
        first = parts[0]
        for part in parts[1:]:
            if part.class_names != first.class_names or part.image_shape != first.image_shape:
                raise InputError(
                    "Parts of one dataset must have equal shapes and class names. "
                    f"Received: {first!r} and {part!r}"
                )
        values = np.concatenate([part.load(np.arange(len(part))) for part in parts])
        labels = np.concatenate([part.labels for part in parts])
        return cls(values, labels, first.class_names, first.name)


def _is_texts(values):
    first = values[0] if len(values) else ""
    return isinstance(first, (str, bytes))


def _texts(values):
    texts = np.empty(len(values), dtype=object)
    texts[:] = values
    return texts


def _series(values, name):
    values = np.asarray(values)
    if values.ndim != 3 or values.dtype.kind not in "biuf":
        raise InputError(
            f"The series of {name!r} must be numbers of shape (series, time, features). "
            f"Received: {values.dtype} of shape {values.shape}"
        )
    check_finite("series", values, first=0)
    return values.astype("float32")
