"""Splits texts into words and looks up their ids, in plain Python."""

from __future__ import annotations

import collections
import re
import warnings
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from lsmha_keras.errors import InputError

PADDING_ID = 0  # after the end of a text that is shorter than the model's length
UNKNOWN_ID = 1  # of all words that the vocabulary lacks
FIRST_ID = 2  # of a word of the vocabulary
# Words, with the apostrophes inside of them, and every other sign on its own.
_WORDS = re.compile(r"\w+(?:['’]\w+)*|[^\w\s]")


class WordIds:
    """Turns texts into ids: 0 is padding, 1 an unknown word, and `i + 2` word `i`.

    Texts beyond `sequence_length` words are cut, with a warning once.

    Args:
        vocabulary: list of str, the words that have ids of their own.
        sequence_length: int, number of ids of a text.
        lowercase: bool, whether capitals count as small letters. Defaults to `True`.

    Raises:
        ValueError: if the vocabulary is empty or has a word twice.

    Example:
        >>> WordIds(["a", "cat"], sequence_length=4)(["A cat purrs"]).tolist()
        [[2, 3, 1, 0]]
    """

    def __init__(
        self, vocabulary: Sequence[str], sequence_length: int, lowercase: bool = True
    ) -> None:
        self.vocabulary = list(vocabulary)
        self.sequence_length = sequence_length
        self.lowercase = lowercase
        self._ids = {word: i for i, word in enumerate(self.vocabulary, FIRST_ID)}
        if not self._ids or len(self._ids) != len(self.vocabulary):
            counts = collections.Counter(self.vocabulary)
            twice = [f", {word!r} twice" for word, count in counts.items() if count > 1]
            raise InputError(
                "`vocabulary` must be words, each once; `from_texts` collects them. Received: "
                f"{len(self.vocabulary)} words{''.join(twice[:1])}"
            )
        self._warned: set[str] = set()

    def __call__(self, texts: Iterable[Any]) -> np.ndarray:
        """Returns ids, int32 `(texts, sequence_length)`.

        Raises:
            ValueError: if a text is no str or has no word.
        """
        texts = list(texts)
        ids = np.full((len(texts), self.sequence_length), PADDING_ID, "int32")
        longest = 0
        for row, text in enumerate(texts):
            words = split_words(text, self.lowercase)
            if not words:
                raise InputError(f"A text must have a word. Received: text {row}, {str(text)!r}")
            longest = max(longest, len(words))
            words = words[: self.sequence_length]
            ids[row, : len(words)] = [self._ids.get(word, UNKNOWN_ID) for word in words]
        self._warn(ids, longest)
        return ids

    def _warn(self, ids, longest):
        if longest > self.sequence_length and "length" not in self._warned:
            self._warned.add("length")
            warnings.warn(
                f"Texts are cut after {self.sequence_length} words, the `sequence_length` of the "
                f"model. Received: a text of {longest} words",
                stacklevel=5,
            )
        if len(ids) and ids.max() <= UNKNOWN_ID and "unknown" not in self._warned:
            self._warned.add("unknown")
            warnings.warn(
                "The vocabulary has none of the words: is it of another language or spelling? "
                f"Received: {len(ids)} texts, and words such as {self.vocabulary[:5]} in the "
                "vocabulary",
                stacklevel=5,
            )


def split_words(text: Any, lowercase: bool) -> list[str]:
    """Returns the words and signs of a text.

    Args:
        text: str, or bytes in UTF-8.
        lowercase: bool, whether capitals become small letters.

    Raises:
        ValueError: if it is neither.
    """
    if isinstance(text, bytes):
        text = text.decode("utf-8", errors="replace")
    if not isinstance(text, str):
        raise InputError(f"A text must be a str. Received: {text!r}")
    return _WORDS.findall(text.lower() if lowercase else text)
