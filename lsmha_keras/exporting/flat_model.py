"""A classifier with its preprocessing as one flat Keras model for inference."""

import keras
import numpy as np
from keras import ops

from lsmha_keras.exporting.check_exportable import activation_of
from lsmha_keras.layers.transformer_block import TransformerBlock


def flat_model(classifier, softmax=False):
    """Builds a model that Keras's own exporters can handle.

    They leave out the preprocessing, export batch normalisation of nested models in training mode,
    and cannot convert the loops of the attention core. This model takes uint8 images, has no nested
    models, folds convolutional blocks, and computes attention in its plain form.

    Args:
        classifier: `CCTImageClassifier` that `check_exportable` accepts; it is left as it is.
        softmax: bool, whether logits become probabilities. Defaults to `False`.

    Returns:
        A `keras.Model` from uint8 images `(batch, height, width, channels)` of the model's size to
        float32 outputs `(batch, classes)`.

    Example:

    ```python
    classifier = lsmha_keras.CCTImageClassifier.from_preset("lsmha-small")
    flat_model(classifier)(np.zeros((1, 32, 32, 3), "uint8"))
    ```
    """
    fused = classifier.fuse()
    converter = classifier.preprocessor.image_converter
    images = keras.Input(classifier.image_shape, dtype="uint8", name="images")
    x = ops.cast(images, "float32")
    if converter.scale is not None:
        x = x * np.asarray(converter.scale, "float32")
    if converter.offset is not None:
        x = x + np.asarray(converter.offset, "float32")
    # Asking for the attention weights selects the plain form.
    plain = [
        f"block_{i}/attention_scores"
        for i, block in enumerate(fused.backbone.blocks)
        if isinstance(block, TransformerBlock)
    ]
    outputs = fused.trace(x, plain)["logits"]
    if softmax and activation_of(classifier) == "linear":
        outputs = ops.softmax(outputs)
    return keras.Model(images, outputs, name="classifier")
