"""The compact convolutional transformer as an image classifier."""

from __future__ import annotations

from typing import Any

import keras

from lsmha_keras.errors import InputError
from lsmha_keras.models.cct_backbone import CCTBackbone
from lsmha_keras.models.cct_classifier import CCTClassifier
from lsmha_keras.models.cct_image_classifier_preprocessor import CCTImageClassifierPreprocessor
from lsmha_keras.models.cct_image_converter import CCTImageConverter


@keras.saving.register_keras_serializable(package="lsmha_keras")
class CCTImageClassifier(CCTClassifier):
    """Image classifier: a `CCTBackbone`, sequence pooling and a dense layer.

    `fit`, `evaluate` and `predict` take raw images (values 0 to 255) as arrays,
    `keras.utils.PyDataset` or `tf.data.Dataset` and pass them through the preprocessor. It comes
    compiled with Adam, sparse categorical cross entropy and accuracy; call `compile` for your own.

    `keras.models.clone_model(model)` makes a copy with new weights and the same preprocessing. To
    change layers while cloning, clone `keras.Model(model.input, model.output)`.

    Args:
        backbone: a `CCTBackbone`.
        num_classes: int, number of classes.
        preprocessor: a `CCTImageClassifierPreprocessor`, or `None` to feed images that are already
            resized and normalised. Defaults to `None`.
        activation: activation of the dense layer. Defaults to `None`, which gives logits.
        dropout: float in [0, 1), dropout before the dense layer. Defaults to `0.0`.
        head_dtype: dtype or policy of the pooling and dense layers; `None` means the backbone's.
        class_names: list of `num_classes` strings or `None`.
        **kwargs: base model arguments, such as `name`.

    Returns:
        Called on preprocessed images `(batch, height, width, channels)`: logits
        `(batch, num_classes)`.

    Raises:
        ValueError: if `num_classes` is not positive, `class_names` has another length, or an
            argument is unknown.

    Example:

    ```python
    classifier = lsmha_keras.CCTImageClassifier.from_preset("cct_2_3x2_h16", num_classes=10)
    images = np.random.randint(0, 256, size=(8, 32, 32, 3), dtype="uint8")
    classifier.fit(images, np.arange(8))
    logits = classifier.predict(images)  # (8, 10)
    ```

    References:
        - [Hassani et al., 2021](https://arxiv.org/abs/2104.05704)
        - [Gross et al., 2025](https://arxiv.org/abs/2506.23832)
    """

    backbone_cls: Any = CCTBackbone  # KerasHub's; subclasses that it should not find set `None`
    own_backbone_cls = CCTBackbone
    preprocessor_cls: Any = CCTImageClassifierPreprocessor

    @classmethod
    def _from_architecture(cls, name, config, num_classes, head):
        if "sequence_length" in config:
            raise InputError(
                "The architecture is of sequences: load it with `CCTTextClassifier` or "
                f"`CCTSequenceClassifier`. Received: preset={name!r}"
            )
        backbone = CCTBackbone(**config)
        if "preprocessor" not in head:
            head["preprocessor"] = CCTImageClassifierPreprocessor(
                CCTImageConverter.for_images(backbone.image_shape)
            )
        return cls(backbone, num_classes, **head)
