"""The size of the images that a model or a preset takes."""

import os


def model_image_size(model_or_name):
    """Returns the size of a model's images, without loading it when it is a preset.

    Args:
        model_or_name: a `CCTImageClassifier`, a `SoftCommittee` (the largest of its members
            counts), another Keras model of images, or a preset's name or directory.

    Returns:
        `(height, width)`.

    Raises:
        ValueError: if the preset is unknown.

    Example:
        >>> model_image_size("cct_7_7x2")
        (224, 224)
    """
    if not isinstance(model_or_name, (str, os.PathLike)):
        shape = getattr(model_or_name, "image_shape", None) or model_or_name.input_shape[1:]
        return tuple(shape[:2])
    from lsmha_keras import presets

    source = presets.resolve_preset(model_or_name)
    if presets.is_committee(source):
        return max(model_image_size(path) for path in presets.read_committee(source)["members"])
    return tuple(presets.read_config(model_or_name)["image_shape"][:2])
