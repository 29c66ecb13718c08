"""Preprocessing of images and labels for the classifier."""

from __future__ import annotations

from typing import Any

import keras
import keras_hub

from lsmha_keras.models.cct_backbone import CCTBackbone
from lsmha_keras.models.cct_image_converter import CCTImageConverter


@keras.saving.register_keras_serializable(package="lsmha_keras")
class CCTImageClassifierPreprocessor(keras_hub.models.ImageClassifierPreprocessor):
    """Resizes and normalises images; labels and sample weights pass unchanged.

    Args:
        image_converter: a `CCTImageConverter` or `None` for no preprocessing.
        **kwargs: base layer arguments, such as `name`. `dtype` defaults to float32, whatever
            Keras's global policy.

    Call arguments:
        x: one image or a batch of them, values 0 to 255.
        y, sample_weight: optional, returned unchanged.

    Returns:
        `x`, `(x, y)` or `(x, y, sample_weight)`, as given.

    Example:

    ```python
    preprocessor = lsmha_keras.CCTImageClassifierPreprocessor(
        lsmha_keras.CCTImageConverter.for_images((32, 32, 3))
    )
    x, y = preprocessor(np.zeros((1, 32, 32, 3), "uint8"), np.array([7]))
    ```
    """

    backbone_cls = CCTBackbone
    image_converter_cls = CCTImageConverter

    def __init__(self, image_converter: CCTImageConverter | None = None, **kwargs: Any) -> None:
        super().__init__(image_converter, **{"dtype": "float32", **kwargs})

    @classmethod
    def from_config(cls, config):
        """Builds from a config, in float32 even if the model was trained in mixed precision."""
        return super().from_config({**config, "dtype": "float32"})
