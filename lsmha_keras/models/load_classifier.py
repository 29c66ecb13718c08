"""Loads a preset, be it a classifier or a committee."""

from __future__ import annotations

from lsmha_keras import presets
from lsmha_keras.models.cct_image_classifier import CCTImageClassifier
from lsmha_keras.models.soft_committee import SoftCommittee
from lsmha_keras.types import PathLike


def load_classifier(preset: PathLike) -> CCTImageClassifier | SoftCommittee:
    """Loads the classifier or committee that a preset holds.

    Args:
        preset: name or directory, as for `CCTImageClassifier.from_preset`.

    Returns:
        A `CCTImageClassifier` or a `SoftCommittee`.

    Raises:
        ValueError: if the preset is unknown (the nearest are named), a file differs from its
            checksum (it is named), or it is an architecture, which has no weights.

    Example:

    ```python
    classifier = lsmha_keras.load_classifier("cct_2_3x2_h16_cifar100")
    ```
    """
    source = presets.resolve_preset(preset)
    if presets.is_committee(source):
        return SoftCommittee.from_preset(source)
    # An architecture has no directory and is loaded by its name.
    return CCTImageClassifier.from_preset(preset if isinstance(source, dict) else source)
