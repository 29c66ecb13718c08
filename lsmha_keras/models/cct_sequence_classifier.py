"""The compact convolutional transformer as a classifier of series, or of token ids."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import keras
import numpy as np

from lsmha_keras.arguments import positive_int
from lsmha_keras.errors import InputError, nearest
from lsmha_keras.layers.lama_pooling import LAMAPooling
from lsmha_keras.models.cct_classifier import CCTClassifier
from lsmha_keras.models.cct_sequence_backbone import CCTSequenceBackbone
from lsmha_keras.models.keras_workarounds import cloneable
from lsmha_keras.models.preprocessed_batches import is_text, is_tf, to_numpy
from lsmha_keras.sample_checks import check_ids, check_series

POOLINGS = ("sequence", "lama")


@cloneable
@keras.saving.register_keras_serializable(package="lsmha_keras")
class CCTSequenceClassifier(CCTClassifier):
    """Classifier of sequences: a `CCTSequenceBackbone`, a pooling and a dense layer.

    `fit`, `evaluate` and `predict` take arrays of series `(batch, time, features)` or of ids
    `(batch, time)`, and the kinds of datasets that `CCTImageClassifier` takes. Values that are not
    finite, ids that the model does not know and sequences of another size are refused. Series are
    not normalised: scale their features to similar ranges first.

    Args:
        backbone: a `CCTSequenceBackbone`.
        num_classes: int, number of classes.
        preprocessor, activation, dropout, head_dtype, class_names: as in `CCTImageClassifier`.
        pooling: `"sequence"`, one weighted mean of the tokens, or `"lama"`, as many as there are
            `pooling_heads`; see `LAMAPooling`. Defaults to `"sequence"`.
        pooling_heads: int, heads of `"lama"`. Defaults to `4`.
        **kwargs: base model arguments, such as `name`.

    Returns:
        Called on sequences: logits `(batch, num_classes)`.

    Raises:
        ValueError: as `CCTImageClassifier`, or if `pooling` is unknown.

    Example:

    ```python
    backbone = lsmha_keras.CCTSequenceBackbone(8, num_features=8, num_heads=16)
    classifier = lsmha_keras.CCTSequenceClassifier(backbone, num_classes=10)
    series = np.random.normal(size=(4, 8, 8)).astype("float32")
    classifier.fit(series, np.arange(4))
    logits = classifier.predict(series)  # (4, 10)
    ```
    """

    backbone_cls: Any = CCTSequenceBackbone
    own_backbone_cls = CCTSequenceBackbone
    preprocessor_cls: Any = None

    def __init__(
        self,
        backbone: CCTSequenceBackbone,
        num_classes: int,
        preprocessor: Any = None,
        activation: str | Callable[..., Any] | None = None,
        dropout: float = 0.0,
        head_dtype: Any = None,
        class_names: Sequence[str] | None = None,
        pooling: str = "sequence",
        pooling_heads: int = 4,
        **kwargs: Any,
    ) -> None:
        if pooling not in POOLINGS:
            raise InputError(
                f"`pooling` must be one of {POOLINGS}{nearest(pooling, POOLINGS)}. "
                f"Received: pooling={pooling!r}"
            )
        self.pooling = pooling
        self.pooling_heads = positive_int("pooling_heads", pooling_heads)
        super().__init__(
            backbone,
            num_classes,
            preprocessor=preprocessor,
            activation=activation,
            dropout=dropout,
            head_dtype=head_dtype,
            class_names=class_names,
            **kwargs,
        )

    @classmethod
    def _from_architecture(cls, name, config, num_classes, head):
        if "image_shape" in config:
            raise InputError(
                "The architecture is of images; those of sequences are called such as "
                f"'text_cct_2_4x1_h16'. Received: preset={name!r}"
            )
        preprocessor = head.get("preprocessor")
        if preprocessor is not None:
            config = {
                **config,
                "sequence_length": preprocessor.sequence_length,
                "vocabulary_size": preprocessor.vocabulary_size,
            }
        return cls(CCTSequenceBackbone(**config), num_classes, **head)

    def make_pooler(self, policy: Any) -> keras.layers.Layer:
        """Makes the layer that pools tokens, with a dtype policy."""
        if self.pooling == "lama":
            return LAMAPooling(self.pooling_heads, dtype=policy, name="pooler")
        return super().make_pooler(policy)

    def preprocess_samples(self, x: Any, y: Any = None, sample_weight: Any = None) -> Any:
        """Checks sequences and labels, then runs the preprocessor, if there is one."""
        x = checked_sequences(self, x, type(self)._check_sequences)
        return super().preprocess_samples(x, y, sample_weight)

    def _checked(self, x):
        return x  # by `preprocess_samples`, with a preprocessor or without

    def _check_sequences(self, x):
        if x.dtype.kind not in "biuf":
            if self.preprocessor is None:
                raise InputError(
                    "Texts need a `CCTTextClassifier` with a preprocessor. "
                    f"Received: an array of dtype {x.dtype}"
                )
        elif (size := self.backbone.vocabulary_size) is not None:
            check_ids(x, self.backbone.sequence_length, size)
        else:
            check_series(x, self.image_shape)

    def _as_batch(self, x):
        """Gives one sequence a batch's dimension."""
        if hasattr(x, "__array__") and len(x.shape) == len(self.image_shape):
            x = to_numpy(x)
            return x if is_text(x) else x[None]
        return x

    def get_config(self):
        """Returns the arguments of the constructor."""
        options = {"pooling": self.pooling, "pooling_heads": self.pooling_heads}
        return {**super().get_config(), **options}


def checked_sequences(model, x, check):
    """Checks arrays of sequences now, and tensors of `tf.data` when the pipeline runs.

    Args:
        model: `RawImageClassifier`, which keeps the error that is found.
        x: sequences of any kind; tensors of str are left to the preprocessor.
        check: function of the model and an array.

    Returns:
        `x`, in a pipeline a tensor that depends on the check.
    """
    if isinstance(x, np.ndarray):
        with model._noting_errors():
            check(model, x)
    elif is_tf(x) and x.dtype.name != "string":
        x = model.checked_in_graph(x, check, x)
    return x
