"""Knowledge distillation: a classifier learns from another one's predictions."""

from typing import Any, Self

import keras
import numpy as np
from keras import ops

from lsmha_keras.arguments import number_in, positive_number
from lsmha_keras.errors import InputError
from lsmha_keras.models.raw_image_classifier import RawImageClassifier

_LOGITS, _PROBABILITIES = "linear", "softmax"


class Distillation:
    """The teacher's part of a student's loss.

    The loss becomes `(1 - weight) * loss + weight * T**2 * KL(teacher || student)`, where the
    temperature T softens both distributions, as in `keras.distillation.Distiller`. The distiller
    is a separate model that does not preprocess images; here the student's own `fit` trains.

    Not a layer and not tracked by the student, so the teacher is neither saved nor trained.

    Args:
        student: `CCTImageClassifier` that predicts logits.
        teacher: `CCTImageClassifier` or `SoftCommittee` for the same classes and image size.
        weight: float from 0 to 1, the teacher's share of the loss.
        temperature: float above 0.

    Raises:
        ValueError: if a number is out of range, or the models do not match.

    Example:

    ```python
    teacher = lsmha_keras.CCTImageClassifier.from_preset("cct_2_3x2_h16", num_classes=10)
    student = lsmha_keras.CCTImageClassifier.from_preset("cct_2_3x2_h16_c1", num_classes=10)
    student.distill_from(teacher, weight=0.5, temperature=4.0)
    ```

    References:
        - [Hinton et al., 2015](https://arxiv.org/abs/1503.02531)
    """

    def __init__(self, student, teacher, weight, temperature):
        number_in("[0, 1]", "weight", weight)
        positive_number("temperature", temperature)
        _check_models(student, teacher)
        self._teacher, self._weight = teacher, weight
        # Keras 3.15 compares raw logits as if they were probabilities if the loss is given by name,
        # as it is by default.
        self._divergence = keras.distillation.LogitsDistillation(
            temperature, loss=keras.losses.KLDivergence()
        )
        self._scale, self._offset = _between(student.preprocessor, teacher.preprocessor)
        self._has_probabilities = _activation(teacher) == _PROBABILITIES

    def __call__(self, loss, images, logits):
        """Adds the teacher's part to a loss.

        Args:
            loss: scalar tensor, the loss on the labels.
            images: `(batch, height, width, channels)` tensor, preprocessed for the student.
            logits: `(batch, classes)` tensor, the student's.

        Returns:
            A scalar float32 tensor.
        """
        images = ops.add(ops.multiply(ops.cast(images, "float32"), self._scale), self._offset)
        target = ops.cast(self._teacher(images, training=False), "float32")
        if self._has_probabilities:
            target = ops.log(ops.maximum(target, keras.config.epsilon()))
        divergence = self._divergence.compute_loss(
            ops.stop_gradient(target), ops.cast(logits, "float32")
        )
        return (1.0 - self._weight) * loss + self._weight * divergence


class LearnsFromTeacher:
    """Mixin of a `RawImageClassifier` that can be the student of a `Distillation`."""

    _distillation = None

    def distill_from(
        self, teacher: Any | None, weight: float = 0.5, temperature: float = 4.0
    ) -> Self:
        """Makes `fit` learn from another model's predictions as well as from the labels.

        The loss becomes `(1 - weight) * loss + weight * T**2 * KL(teacher || student)`, where the
        temperature T softens both distributions. The teacher sees the same augmented and mixed
        images as the student. It is neither trained nor saved with the student.

        Args:
            teacher: `CCTImageClassifier` or `SoftCommittee` for the same classes and image size,
                or `None` to learn from the labels alone again.
            weight: float from 0 to 1, the teacher's share. Defaults to `0.5`.
            temperature: float above 0; a higher one gives more weight to what the teacher thinks of
                the wrong labels. Defaults to `4.0`.

        Returns:
            This model.

        Raises:
            ValueError: if a number is out of range, the models differ in classes or image size, or
                one of them does not predict a distribution.

        References:
            - [Hinton et al., 2015](https://arxiv.org/abs/1503.02531)
        """
        self._distillation = (
            None if teacher is None else Distillation(self, teacher, weight, temperature)
        )
        # It was compiled for the former loss.
        self.train_function = None
        return self

    def compute_loss(self, x=None, y=None, y_pred=None, sample_weight=None, training=True):
        """Computes the loss, in training with the teacher's part; see `distill_from`."""
        loss = super().compute_loss(x, y, y_pred, sample_weight, training)
        return self.distilled_loss(loss, x, y_pred) if training else loss

    def distilled_loss(self, loss, images, logits):
        """Returns a loss with the teacher's part; see `Distillation.__call__`."""
        return loss if self._distillation is None else self._distillation(loss, images, logits)


def _check_models(student, teacher):
    if not isinstance(teacher, RawImageClassifier):
        raise InputError(
            "`teacher` must be a `CCTImageClassifier` or a `SoftCommittee`. "
            f"Received: teacher={teacher!r}"
        )
    if teacher is student:
        raise InputError(
            "A model cannot be its own teacher: load a second copy. "
            f"Received: teacher={teacher.name}, which is the student"
        )
    if _activation(student) != _LOGITS:
        raise InputError(
            "The student must predict logits: build it with `activation=None`. "
            f"Received: activation={_activation(student)!r}"
        )
    mode = getattr(teacher, "mode", None)  # a committee's votes are not a distribution
    if _activation(teacher) not in (_LOGITS, _PROBABILITIES) or mode == "vote":
        raise InputError(
            "The teacher must predict logits or probabilities that add up to 1. "
            f"Received: activation={_activation(teacher)!r}, mode={mode!r}"
        )
    if isinstance(teacher.input, dict):
        raise InputError(
            "The members of the teacher preprocess images differently: use members that agree. "
            f"Received: {len(teacher.input)} kinds of preprocessing"
        )
    pairs = {
        "image_shape": (tuple(teacher.input.shape[1:]), tuple(student.input.shape[1:])),
        "num_classes": (teacher.num_classes, student.num_classes),
    }
    words = [getattr(model.preprocessor, "vocabulary", None) for model in (teacher, student)]
    if None not in words:
        pairs["vocabulary"] = tuple(words)  # the teacher gets the student's ids
    if teacher.class_names and student.class_names:
        pairs["class_names"] = (list(teacher.class_names), list(student.class_names))
    for name, (found, wanted) in pairs.items():
        if found != wanted:
            raise InputError(
                f"Teacher and student must agree on `{name}`. "
                f"Received: {_short(found)} for the teacher, {_short(wanted)} for the student"
            )


def _short(value):
    text = repr(value)
    return text if len(text) < 80 else f"{text[:77]}..."


def _activation(model):
    return keras.activations.get(model.activation).__name__


def _between(student, teacher):
    """Returns scale and offset that turn the student's preprocessed images into the teacher's."""
    (scale, offset), (wanted_scale, wanted_offset) = map(_affine, (student, teacher))
    factor = wanted_scale / scale
    return (np.asarray(value, "float32") for value in (factor, wanted_offset - offset * factor))


def _affine(preprocessor):
    converter = getattr(preprocessor, "image_converter", None)
    values = getattr(converter, "scale", None), getattr(converter, "offset", None)
    return (
        np.asarray(default if value is None else value, "float64")
        for value, default in zip(values, (1.0, 0.0), strict=True)
    )
