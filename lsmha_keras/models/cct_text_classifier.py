"""The compact convolutional transformer as a classifier of texts."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Self

import keras

from lsmha_keras.models.cct_sequence_backbone import CCTSequenceBackbone
from lsmha_keras.models.cct_sequence_classifier import CCTSequenceClassifier
from lsmha_keras.models.cct_text_classifier_preprocessor import CCTTextClassifierPreprocessor


@keras.saving.register_keras_serializable(package="lsmha_keras")
class CCTTextClassifier(CCTSequenceClassifier):
    """Text classifier: a `CCTSequenceBackbone` of token ids, a pooling and a dense layer.

    `fit`, `evaluate` and `predict` take raw texts, as lists, arrays or in datasets, on all three
    backends, with TensorFlow or without: the preprocessor splits them in plain Python. Its
    vocabulary is saved with the model.

    Args:
        backbone, num_classes, activation, dropout, head_dtype, class_names, pooling,
            pooling_heads: as in `CCTSequenceClassifier`.
        preprocessor: a `CCTTextClassifierPreprocessor`, or `None` to feed ids.
        **kwargs: base model arguments, such as `name`.

    Returns:
        Called on ids `(batch, sequence_length)`: logits `(batch, num_classes)`.

    Raises:
        ValueError: as `CCTSequenceClassifier`.

    Example:

    ```python
    texts = ["a lovely film", "dull and slow", "charming", "a waste of time"]
    classifier = lsmha_keras.CCTTextClassifier.from_texts(
        texts, num_classes=2, sequence_length=8, num_heads=16
    )
    classifier.fit(texts, np.array([1, 0, 1, 0]))
    logits = classifier.predict("a charming film")  # (1, 2)
    ```

    References:
        - [Hassani et al., 2021](https://arxiv.org/abs/2104.05704), appendix on text
    """

    preprocessor_cls = CCTTextClassifierPreprocessor

    @classmethod
    def from_texts(
        cls,
        texts: Iterable[str],
        num_classes: int,
        sequence_length: int,
        max_words: int = 20_000,
        min_count: int = 1,
        class_names: Sequence[str] | None = None,
        head: Mapping[str, Any] | None = None,
        **backbone: Any,
    ) -> Self:
        """Builds an untrained classifier with the vocabulary of training texts.

        Args:
            texts: iterable of str, training texts.
            num_classes: int, number of classes.
            sequence_length: int, number of words of the longest text that is not cut.
            max_words: int, size of the vocabulary at most. Defaults to `20_000`.
            min_count: int, how often a word of it must occur; from 2 on the model learns what to do
                with unknown words. Defaults to `1`.
            class_names: list of `num_classes` strings or `None`.
            head: dict of other arguments of the classifier, such as `pooling`.
            **backbone: arguments of `CCTSequenceBackbone`, such as `num_heads`.

        Returns:
            A `CCTTextClassifier`.

        Raises:
            ValueError: if an argument is unknown or out of range, or there is no word.
        """
        preprocessor = CCTTextClassifierPreprocessor.from_texts(
            texts, sequence_length, max_words, min_count
        )
        return cls(
            CCTSequenceBackbone(
                sequence_length, vocabulary_size=preprocessor.vocabulary_size, **backbone
            ),
            num_classes,
            preprocessor=preprocessor,
            class_names=class_names,
            **(head or {}),
        )

    def predict(self, x: Any, batch_size: int | None = None, **kwargs: Any) -> Any:
        """Predicts; as `keras.Model.predict`, on texts, or on one."""
        return super().predict([x] if isinstance(x, str) else x, batch_size, **kwargs)
