"""What a `Predictor` is given, and the arrays that its graph takes: images, texts or series."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any

import numpy as np

from lsmha_keras.errors import InputError
from lsmha_keras.image_file import read_any
from lsmha_keras.images import resize_batch, resize_image
from lsmha_keras.runtimes.description import Description
from lsmha_keras.sample_checks import check_ids, check_image_values, check_series, warn_of_fractions
from lsmha_keras.words import PADDING_ID, WordIds

# Images per run: throughput does not grow beyond 16, and memory does.
_BATCH = 32


def inputs_of(description: Description) -> ImageInputs | TextInputs | SeriesInputs:
    """Returns what reads the inputs of a model.

    Args:
        description: `Description`.

    Example:

    ```python
    inputs_of(predictor._runtime.description).read("photo.png")
    ```
    """
    kinds: dict[int, Any] = {1: TextInputs, 2: SeriesInputs, 3: ImageInputs}
    return kinds[len(description.image_shape)](description)


class ImageInputs:
    """Images: paths, open files, PIL images and arrays of any size.

    Args:
        description: `Description` of the model.
    """

    kind = "images"

    def __init__(self, description: Description) -> None:
        self.shape = description.image_shape

    def read(self, image: Any) -> np.ndarray:
        """Reads an image and resizes it to the model's size; see `Predictor.read`."""
        size, channels = self.shape[:2], self.shape[2]
        if hasattr(image, "shape"):
            return _eight_bits(resize_image(self._checked(image), size))
        if channels not in (1, 3):
            raise InputError(
                f"Files and PIL images are read as RGB, and the model takes {channels} channels: "
                f"give arrays. Received: {image!r}"
            )
        pixels = read_any(image, size)
        if channels == 1:
            pixels = pixels.mean(axis=-1, keepdims=True).round().astype("uint8")
        return pixels

    def is_one(self, images: Any) -> bool:
        """Returns whether this is one image and not several."""
        if isinstance(images, (list, tuple)):
            return False
        return not hasattr(images, "shape") or len(self._with_channels(images).shape) == 3

    def chunks(self, images: Any) -> Iterator[np.ndarray]:
        """Yields uint8 arrays `(batch, height, width, channels)` of the model's size."""
        if self.is_one(images):
            images = [images]
        whole = hasattr(images, "shape")
        images = self._checked(images) if whole else images
        for start in range(0, len(images), _BATCH):
            chunk = images[start : start + _BATCH]
            if not whole:
                chunk = np.stack([self.read(image) for image in chunk])
            elif chunk.shape[1:3] != self.shape[:2]:
                chunk = resize_batch(chunk, self.shape[:2])
            yield np.ascontiguousarray(_eight_bits(chunk))

    def _checked(self, images):
        """Checks an array of one image or several, and returns it."""
        images = self._with_channels(images)
        if images.ndim not in (3, 4) or images.shape[-1] != self.shape[2]:
            raise InputError(
                "Images must have shape (height, width, channels) or (batch, height, width, "
                f"channels) with {self.shape[2]} channels. "
                f"Received: images of shape {images.shape}"
            )
        check_image_values(images)
        warn_of_fractions(images, stacklevel=5)
        return images

    def _with_channels(self, images):
        """Adds the last axis to grey images that come without it."""
        images = np.asarray(images)
        if self.shape[2] == 1 and images.shape[-1] != 1 and images.ndim in (2, 3):
            return images[..., None]
        return images


class TextInputs:
    """Texts, or the ids of their words `(time,)` or `(batch, time)`.

    Args:
        description: `Description` of the model.
    """

    kind = "texts"

    def __init__(self, description: Description) -> None:
        (self._time,) = description.image_shape
        self._any_length = description.any_length
        self._num_ids = description.vocabulary_size
        self._word_ids = None
        if description.vocabulary is not None:
            self._word_ids = WordIds(description.vocabulary, self._time, description.lowercase)

    def read(self, text: Any) -> np.ndarray:
        """Returns the ids of one text, int32 `(time,)`."""
        return self._ids([text])[0]

    def is_one(self, texts: Any) -> bool:
        """Returns whether this is one text and not several."""
        if hasattr(texts, "shape"):
            return len(texts.shape) == (0 if texts.dtype.kind in "OUS" else 1)
        return isinstance(texts, (str, bytes, os.PathLike))

    def chunks(self, texts: Any) -> Iterator[np.ndarray]:
        """Yields ids, int32 `(batch, time)`, without padding that a whole batch ends with."""
        if self.is_one(texts):
            texts = [texts]
        for start in range(0, len(texts), _BATCH):
            ids = self._ids(texts[start : start + _BATCH])
            filled = np.flatnonzero((ids != PADDING_ID).any(axis=0))
            if self._any_length and len(filled):
                ids = ids[:, : filled[-1] + 1]
            yield np.ascontiguousarray(ids)

    def _ids(self, texts):
        first = np.asarray(texts[0])
        if first.dtype.kind in "biuf":
            ids = np.stack([np.asarray(one) for one in texts])
            check_ids(ids, self._time, self._num_ids)
            return ids.astype("int32")
        if self._word_ids is None:
            raise InputError(
                "The model has no vocabulary and takes ids, ints of shape (batch, "
                f"{self._time}). Received: {texts[0]!r}"
            )
        if paths := [text for text in texts if isinstance(text, os.PathLike)]:
            raise InputError(
                "Texts are given as str: read files first, or name them on the command line of "
                f"`lsmha predict`. Received: {paths[0]}"
            )
        return self._word_ids(texts)


class SeriesInputs:
    """Series `(time, features)` or `(batch, time, features)`.

    Args:
        description: `Description` of the model.
    """

    kind = "series"

    def __init__(self, description: Description) -> None:
        self.shape = description.image_shape
        self._mask_value = description.mask_value if description.any_length else None

    def read(self, series: Any) -> np.ndarray:
        """Checks one series and returns it, float32 `(time, features)`."""
        return self._checked(np.asarray(series)[None])[0]

    def is_one(self, series: Any) -> bool:
        """Returns whether this is one series and not several."""
        return hasattr(series, "shape") and len(series.shape) == 2

    def chunks(self, series: Any) -> Iterator[np.ndarray]:
        """Yields float32 arrays, without padding that a whole batch ends with."""
        if self.is_one(series):
            series = [series]
        for start in range(0, len(series), _BATCH):
            chunk = series[start : start + _BATCH]
            chunk = self._checked(chunk if hasattr(chunk, "shape") else _stacked(chunk))
            if self._mask_value is not None:
                filled = np.flatnonzero((chunk != self._mask_value).any(axis=(0, 2)))
                chunk = chunk[:, : filled[-1] + 1] if len(filled) else chunk
            yield np.ascontiguousarray(chunk)

    def _checked(self, series):
        check_series(series, self.shape)
        return series.astype("float32")


def _stacked(series):
    arrays = [np.asarray(one) for one in series]
    if shapes := {array.shape for array in arrays} - {arrays[0].shape}:
        raise InputError(
            "All series must have one shape. "
            f"Received: series of the shapes {arrays[0].shape} and {shapes.pop()}"
        )
    return np.stack(arrays)


def _eight_bits(images):
    return images if images.dtype == np.uint8 else np.rint(images).astype("uint8")
