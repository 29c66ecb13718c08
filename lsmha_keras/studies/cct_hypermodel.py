"""A search space as a hypermodel for KerasTuner's own tuners."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import keras

from lsmha_keras.errors import InputError
from lsmha_keras.models import CCTImageClassifier, CCTSequenceClassifier, CCTTextClassifier
from lsmha_keras.presets import read_config
from lsmha_keras.studies.search_space import ARCHITECTURE, SearchSpace, import_keras_tuner

_TRAINING = ("learning_rate", "weight_decay")


class CCTHyperModel(import_keras_tuner().HyperModel):  # type: ignore[misc]
    """Builds the models of a search space for KerasTuner, with your own data and `fit` arguments.

    For scripts that call KerasTuner themselves. A study (`lsmha_keras.search`) adds budgets,
    augmentation, and resuming within a trial.

    Args:
        space: `SearchSpace`, or a dict for `SearchSpace.from_dict`, with dimensions of the model,
            `learning_rate` and `weight_decay`.
        num_classes: int.
        base: str, preset whose architecture the trials change. Its weights are not loaded.
        image_shape: `(height, width, channels)`, or None for that of `base`.
        overrides: dict of arguments of the backbone and the classifier for every trial, such as
            `hidden_dim`; for texts with their `preprocessor`, for series with `sequence_length` and
            `num_features`.
        learning_rate: float, used if the space has none.
        weight_decay: float, used if the space has none.

    Raises:
        ValueError: if the space has a dimension that only a study can change, or contradicts
            itself.

    Example:

    ```python
    hypermodel = lsmha_keras.CCTHyperModel({"num_heads": [2, 8]}, num_classes=10)
    tuner = keras_tuner.RandomSearch(hypermodel, "val_accuracy", max_trials=2)
    tuner.search(images, labels, validation_split=0.2, epochs=1)
    model = tuner.get_best_models()[0]
    ```
    """

    def __init__(
        self,
        space: SearchSpace,
        num_classes: int,
        base: str = "cct_2_3x2",
        image_shape: Sequence[int] | None = None,
        overrides: Mapping[str, Any] | None = None,
        learning_rate: float = 0.001,
        weight_decay: float = 0.05,
    ) -> None:
        super().__init__(name="cct")
        self.space = space if isinstance(space, SearchSpace) else SearchSpace.from_dict(space)
        self.num_classes = num_classes
        self.base = base
        self.image_shape = image_shape
        self.overrides = dict(overrides or {})
        self.learning_rate = learning_rate
        self.weight_decay = weight_decay
        others = [n for n in self.space.names if n not in (*ARCHITECTURE, *_TRAINING)]
        if others:
            raise InputError(
                "A hypermodel only builds and compiles models; to search data and schedule, use a "
                f"study (`lsmha_keras.search`). Received: a space with {', '.join(others)}"
            )
        self.space.check(self._defaults())

    def _defaults(self):
        return {"num_conv_blocks": 0, **read_config(self.base), **self.overrides}

    def _class(self):
        if "sequence_length" not in read_config(self.base):
            return CCTImageClassifier
        return CCTTextClassifier if "preprocessor" in self.overrides else CCTSequenceClassifier

    def build(self, hp: Any) -> Any:
        """Builds and compiles the model of a trial.

        Args:
            hp: `keras_tuner.HyperParameters`.

        Returns:
            A `CCTImageClassifier`, `CCTTextClassifier` or `CCTSequenceClassifier`, compiled for
            integer labels with the metric "accuracy".
        """
        values = self.space.declare(hp, self._defaults())
        model = self._class().from_preset(
            self.base,
            num_classes=self.num_classes,
            image_shape=self.image_shape,
            load_weights=False,
            **{**self.overrides, **self.space.backbone_arguments(values)},
        )
        model.compile(
            optimizer=keras.optimizers.AdamW(
                values.get("learning_rate", self.learning_rate),
                weight_decay=values.get("weight_decay", self.weight_decay),
            ),
            loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
            metrics=[keras.metrics.SparseCategoricalAccuracy(name="accuracy")],
        )
        return model
