"""Backbone, classifier, preprocessing and committees. Importing this package imports KerasHub."""

# ruff: noqa: E402 - KerasHub comes first: it imports TensorFlow on every backend, with its notes.
from lsmha_keras._imports import import_quietly

import_quietly("keras_hub")

from lsmha_keras.models.cct_backbone import CCTBackbone
from lsmha_keras.models.cct_image_classifier import CCTImageClassifier
from lsmha_keras.models.cct_image_classifier_preprocessor import CCTImageClassifierPreprocessor
from lsmha_keras.models.cct_image_converter import CCTImageConverter
from lsmha_keras.models.cct_sequence_backbone import CCTSequenceBackbone
from lsmha_keras.models.cct_sequence_classifier import CCTSequenceClassifier
from lsmha_keras.models.cct_text_classifier import CCTTextClassifier
from lsmha_keras.models.cct_text_classifier_preprocessor import CCTTextClassifierPreprocessor
from lsmha_keras.models.load_classifier import load_classifier
from lsmha_keras.models.soft_committee import SoftCommittee
from lsmha_keras.presets import is_committee, list_presets

__all__ = [
    "CCTBackbone",
    "CCTImageClassifier",
    "CCTImageClassifierPreprocessor",
    "CCTImageConverter",
    "CCTSequenceBackbone",
    "CCTSequenceClassifier",
    "CCTTextClassifier",
    "CCTTextClassifierPreprocessor",
    "SoftCommittee",
    "load_classifier",
]


def _name_presets_in_keras_hub():
    """Registers our presets with KerasHub, for its `presets` and its own `from_preset`."""
    try:
        # KerasHub has no public function for this; its own models call this private one.
        from keras_hub.src.utils.preset_utils import register_presets
    except ImportError:
        return  # Our own `from_preset` and `list_presets` do not depend on it.
    known = {}
    for info in list_presets(architectures=False):
        if not is_committee(info.path):
            metadata = {"description": str(info), "params": info.parameters, "path": "cct"}
            # KerasHub opens anything that is not a URL as a directory.
            known[info.name] = {"metadata": metadata, "kaggle_handle": str(info.path)}
            if info.alias:
                known[info.alias] = known[info.name]
    register_presets(known, CCTBackbone)


_name_presets_in_keras_hub()
