"""Models: they know layers. Importing this package imports KerasHub."""

from lsmha_keras.models.cct_backbone import CCTBackbone
from lsmha_keras.models.cct_image_classifier import CCTImageClassifier
from lsmha_keras.models.cct_image_classifier_preprocessor import CCTImageClassifierPreprocessor
from lsmha_keras.models.cct_image_converter import CCTImageConverter
from lsmha_keras.models.load_classifier import load_classifier
from lsmha_keras.models.soft_committee import SoftCommittee

__all__ = [
    "CCTBackbone",
    "CCTImageClassifier",
    "CCTImageClassifierPreprocessor",
    "CCTImageConverter",
    "SoftCommittee",
    "load_classifier",
]
