"""One flat graph without preprocessing, and checks that a model can be exported."""

import keras
import numpy as np
from keras import ops

from lsmha_keras.errors import InputError
from lsmha_keras.exporting.onnx_attention import KINDS
from lsmha_keras.layers.conv_block import ConvBlock
from lsmha_keras.layers.gru_tokenizer import GRUTokenizer
from lsmha_keras.layers.transformer_block import TransformerBlock
from lsmha_keras.models.cct_classifier import CCTClassifier
from lsmha_keras.models.cct_text_classifier_preprocessor import CCTTextClassifierPreprocessor

_ACTIVATIONS = ("linear", "softmax", "sigmoid")


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
        if isinstance(block, TransformerBlock) and block.attention.has_scores
    ]
    outputs = fused.trace(x, plain)["logits"]
    if softmax and activation_of(classifier) == "linear":
        outputs = ops.softmax(outputs)
    return keras.Model(images, outputs, name="classifier")


def check_exportable(classifier):
    """Raises an error for models that an exported graph would not reproduce.

    Args:
        classifier: the model to export.

    Raises:
        ValueError: if it is not a `CCTImageClassifier`, has no preprocessor, computes in a
            precision other than float32, is quantised, or has a block or an activation that has no
            counterpart in the graph; names it and the way out.
    """
    if not isinstance(classifier, CCTClassifier):
        raise InputError(
            "Only a `CCTImageClassifier` can be exported; export the members of a committee one by "
            f"one. Received: {type(classifier).__name__}"
        )
    if len(classifier.image_shape) != 3:
        _check_preprocessor(classifier.preprocessor)
    elif getattr(classifier.preprocessor, "image_converter", None) is None:
        raise InputError(
            "The preprocessing becomes part of the file, and the model has none: build it with a "
            "`CCTImageClassifierPreprocessor`. Received: preprocessor without an image converter"
        )
    if isinstance(classifier.backbone.tokenizer, GRUTokenizer):
        raise InputError(
            "A recurrent tokenizer runs in Keras only: export a model with "
            "`tokenizer_design='plain'`. Received: tokenizer_design='gru'"
        )
    if activation_of(classifier) not in _ACTIVATIONS:
        raise InputError(
            f"The model must end with one of {_ACTIVATIONS}. "
            f"Received: activation={activation_of(classifier)!r}"
        )
    _check_layers(classifier)


def _check_preprocessor(preprocessor):
    known = preprocessor is None or type(preprocessor) is CCTTextClassifierPreprocessor
    if not known:
        raise InputError(
            "Texts are split by the `CCTTextClassifierPreprocessor`, whose vocabulary becomes part "
            "of the file: export a model with it, or without any. "
            f"Received: a {type(preprocessor).__name__}"
        )


def activation_of(classifier):
    """Returns the name of a classifier's last activation, "linear" for logits."""
    return keras.activations.get(classifier.activation).__name__


def _check_layers(classifier):
    for layer in classifier._flatten_layers():
        if getattr(layer, "quantization_mode", None):
            raise InputError(
                "Quantised models cannot be exported: export the one that was quantised. "
                f"Received: the layer {layer.path} with {layer.quantization_mode}"
            )
        if layer.compute_dtype not in (None, "float32") and layer.weights:
            raise InputError(
                'Exported files compute in float32: load the preset with dtype="float32". '
                f"Received: the layer {layer.path}, which computes in {layer.compute_dtype}"
            )
    for block in classifier.backbone.blocks:
        known = type(block) is ConvBlock or (
            type(block) is TransformerBlock and type(block.attention) in KINDS
        )
        if not known:
            attention = getattr(block, "attention", None)
            kind = f" with {type(attention).__name__}" if attention is not None else ""
            raise InputError(
                "Blocks must be a `ConvBlock` or a `TransformerBlock` with one of "
                f"{', '.join(sorted(layer.__name__ for layer in KINDS))}; other kinds of attention "
                "run in Keras only. "
                f"Received: {block.name}, a {type(block).__name__}{kind}"
            )
        if getattr(block, "mlp_conv_enabled", False) or getattr(block, "ista", None):
            raise InputError(
                "A convolution in the perceptron, and what replaces it, run in Keras only. "
                f"Received: {block.name} with mlp={block.mlp!r}, mlp_conv={block.mlp_conv_enabled}"
            )
        for name, none in (("token_keep", 1), ("head_tokens", 0)):
            if (value := getattr(block, name, none)) != none:
                raise InputError(
                    "Blocks that add tokens or leave some out run in Keras only. "
                    f"Received: {block.name} with {name}={value}"
                )
