"""Several datasets one after the other."""

import numpy as np

from lsmha_keras.data.image_dataset import ImageDataset


class ConcatenatedDataset(ImageDataset):
    """The images of several datasets in a row, as the split `"train+test"` asks for.

    Args:
        parts: list of `ImageDataset` with equal image shapes and class names.

    Raises:
        ValueError: if shapes or class names differ.
    """

    def __init__(self, parts):
        first = parts[0]
        for part in parts[1:]:
            if part.image_shape != first.image_shape or part.class_names != first.class_names:
                raise ValueError(
                    "Parts of one dataset must have equal image shapes and class names. "
                    f"Received: {first!r} and {part!r}"
                )
        labels = np.concatenate([part.labels for part in parts])
        super().__init__(labels, first.class_names, first.image_shape, name=first.name)
        self._parts = parts
        self._starts = np.cumsum([0] + [len(part) for part in parts])

    def _read(self, rows):
        images = np.empty((len(rows), *self.image_shape), dtype="uint8")
        for part, start in zip(self._parts, self._starts[:-1], strict=True):
            inside = (rows >= start) & (rows < start + len(part))
            if inside.any():
                images[inside] = part.load(rows[inside] - start)
        return images
