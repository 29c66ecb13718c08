"""Backbone, classifier, preprocessing and committees. Importing this package imports KerasHub."""

# ruff: noqa: E402 - KerasHub comes first: it imports TensorFlow on every backend, with its notes.
from lsmha_keras._imports import import_quietly

import_quietly("keras_hub")

from lsmha_keras.models.cct_backbone import CCTBackbone
from lsmha_keras.models.cct_classifier import CCTClassifier
from lsmha_keras.models.cct_image_classifier import CCTImageClassifier
from lsmha_keras.models.cct_image_classifier_preprocessor import CCTImageClassifierPreprocessor
from lsmha_keras.models.cct_image_converter import CCTImageConverter
from lsmha_keras.models.cct_sequence_backbone import CCTSequenceBackbone
from lsmha_keras.models.cct_sequence_classifier import CCTSequenceClassifier
from lsmha_keras.models.cct_text_classifier import CCTTextClassifier
from lsmha_keras.models.cct_text_classifier_preprocessor import CCTTextClassifierPreprocessor
from lsmha_keras.models.soft_committee import SoftCommittee
from lsmha_keras.presets import input_kind, is_committee, list_presets, resolve_preset
from lsmha_keras.types import PathLike

__all__ = [
    "CCTBackbone",
    "CCTClassifier",
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


def load_classifier(preset: PathLike) -> CCTClassifier | SoftCommittee:
    """Loads the classifier or committee that a preset holds.

    Args:
        preset: name or directory, as for `CCTImageClassifier.from_preset`.

    Returns:
        A classifier of the class that was saved, or a `SoftCommittee`.

    Raises:
        ValueError: if the preset is unknown (the nearest are named), a file differs from its
            checksum (it is named), or it is an architecture, which has no weights.

    Example:

    ```python
    classifier = lsmha_keras.load_classifier("cct_2_3x2_h16_cifar100")
    ```
    """
    source = resolve_preset(preset)
    if is_committee(source):
        return SoftCommittee.from_preset(source)
    # An architecture has no directory and is loaded by its name.
    return CCTClassifier.from_preset(preset if isinstance(source, dict) else source)


def _name_presets_in_keras_hub():
    """Registers our presets with KerasHub, for its `presets` and its own `from_preset`."""
    try:
        # KerasHub has no public function for this; its own models call this private one.
        from keras_hub.src.utils.preset_utils import register_presets
    except ImportError:
        return  # Our own `from_preset` and `list_presets` do not depend on it.
    kinds = {}
    for info in list_presets(architectures=False):
        if not is_committee(info.path):
            metadata = {"description": str(info), "params": info.parameters, "path": "cct"}
            # KerasHub opens anything that is not a URL as a directory.
            of_images = input_kind(info.path) == "images"
            known = kinds.setdefault(CCTBackbone if of_images else CCTSequenceBackbone, {})
            known[info.name] = {"metadata": metadata, "kaggle_handle": str(info.path)}
            if info.alias:
                known[info.alias] = known[info.name]
    for backbone_cls, known in kinds.items():
        register_presets(known, backbone_cls)


_name_presets_in_keras_hub()
