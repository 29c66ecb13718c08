"""Turns texts into the ids of their words, in plain Python: it needs no TensorFlow."""

from __future__ import annotations

import collections
from collections.abc import Iterable, Sequence
from typing import Any, Self

import keras
import keras_hub
import numpy as np

from lsmha_keras.arguments import plain, positive_int
from lsmha_keras.errors import InputError
from lsmha_keras.models.cct_sequence_backbone import CCTSequenceBackbone
from lsmha_keras.models.preprocessed_batches import is_tf
from lsmha_keras.sample_checks import check_ids
from lsmha_keras.words import FIRST_ID, WordIds, split_words


@keras.saving.register_keras_serializable(package="lsmha_keras")
class CCTTextClassifierPreprocessor(keras_hub.models.Preprocessor):
    """Splits texts into words and signs, and looks up their ids; labels pass unchanged.

    Id 0 is padding, 1 a word that the vocabulary lacks, and `i + 2` word `i` of the vocabulary,
    which is saved in the preset. Texts beyond `sequence_length` words are cut, with a warning once.

    Args:
        vocabulary: list of str, the words that have ids of their own.
        sequence_length: int, number of ids of a text.
        lowercase: bool, whether capitals count as small letters. Defaults to `True`.
        **kwargs: base layer arguments, such as `name`.

    Call arguments:
        x: one text, a list or array of texts, a string tensor of TensorFlow, or ids
            `(batch, sequence_length)`, which are checked and returned.
        y, sample_weight: optional, returned unchanged.

    Returns:
        Ids, int32 of shape `(batch, sequence_length)`, `(ids, y)` or `(ids, y, sample_weight)`, as
        given.

    Raises:
        ValueError: if the vocabulary is empty or has a word twice, `sequence_length` is not
            positive, a text has no word, or ids are out of range.

    Example:

    ```python
    preprocessor = lsmha_keras.CCTTextClassifierPreprocessor.from_texts(
        ["What is a cat ?", "Who is Ada Lovelace ?"], sequence_length=8
    )
    preprocessor(["Who is a cat ?"])  # [[8, 3, 5, 6, 2, 0, 0, 0]]
    ```
    """

    backbone_cls = CCTSequenceBackbone

    def __init__(
        self,
        vocabulary: Sequence[str],
        sequence_length: int,
        lowercase: bool = True,
        **kwargs: Any,
    ) -> None:
        super().__init__(**{"dtype": "float32", **kwargs})
        self.vocabulary = list(vocabulary)
        self.sequence_length = positive_int("sequence_length", sequence_length)
        self.lowercase = plain(lowercase)
        self._word_ids = WordIds(self.vocabulary, self.sequence_length, self.lowercase)

    @classmethod
    def from_texts(
        cls,
        texts: Iterable[str],
        sequence_length: int,
        max_words: int = 20_000,
        min_count: int = 1,
        lowercase: bool = True,
        **kwargs: Any,
    ) -> Self:
        """Collects the vocabulary of training texts, the most frequent words first.

        Args:
            texts: iterable of str.
            sequence_length: int, number of ids of a text.
            max_words: int, size of the vocabulary at most. Defaults to `20_000`.
            min_count: int, how often a word must occur. With 1 no training text has an unknown
                word, so a model never learns what to do with one. Defaults to `1`.
            lowercase: bool. Defaults to `True`.
            **kwargs: base layer arguments, such as `name`.

        Returns:
            A `CCTTextClassifierPreprocessor`.

        Raises:
            ValueError: if no word occurs that often.
        """
        counts = collections.Counter(
            word for text in texts for word in split_words(text, lowercase)
        )
        # Of words as frequent as each other, the first in the alphabet: any order of texts will do.
        words = sorted(
            (word for word, count in counts.items() if count >= min_count),
            key=lambda word: (-counts[word], word),
        )
        if not words:
            raise InputError(
                "No word occurs often enough for the vocabulary. Received: "
                f"{len(counts)} words, min_count={min_count}"
            )
        words = words[: positive_int("max_words", max_words)]
        return cls(words, sequence_length, lowercase, **kwargs)

    @property
    def vocabulary_size(self) -> int:
        """Number of ids: those of the words, of padding and of unknown words."""
        return len(self.vocabulary) + FIRST_ID

    def words(self, text: str) -> list[str]:
        """Lists the words and signs of a text that a model sees, one for each id.

        Args:
            text: str.

        Returns:
            A list of at most `sequence_length` str, as they are written in the text.
        """
        seen, written = split_words(text, self.lowercase), split_words(text, False)
        # A few capitals of other alphabets are no letters any more once they are small.
        return (written if len(written) == len(seen) else seen)[: self.sequence_length]

    def call(self, x, y=None, sample_weight=None):
        return keras.utils.pack_x_y_sample_weight(self._to_ids(x), y, sample_weight)

    def _to_ids(self, x):
        if is_tf(x):
            import tensorflow as tf

            ids = tf.numpy_function(self._to_ids, [x], tf.int32)
            ids.set_shape((None, self.sequence_length))
            return ids
        x = np.atleast_1d(x if isinstance(x, np.ndarray) else np.array(x, dtype=object))
        if x.dtype.kind in "iu":
            check_ids(x, self.sequence_length, self.vocabulary_size)
            return x.astype("int32")
        return self._word_ids(x)

    def get_config(self):
        return {
            **super().get_config(),
            "vocabulary": self.vocabulary,
            "sequence_length": self.sequence_length,
            "lowercase": self.lowercase,
        }
