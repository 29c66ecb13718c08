"""Models: they know layers. Importing this package imports KerasHub."""

from lsmha_keras.models.cct_backbone import CCTBackbone
from lsmha_keras.models.cct_image_classifier import CCTImageClassifier
from lsmha_keras.models.cct_image_classifier_preprocessor import CCTImageClassifierPreprocessor
from lsmha_keras.models.cct_image_converter import CCTImageConverter

__all__ = [
    "CCTBackbone",
    "CCTImageClassifier",
    "CCTImageClassifierPreprocessor",
    "CCTImageConverter",
]
