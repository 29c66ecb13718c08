"""Opens a dataset at the size of the images that a model takes."""

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


def open_source(name, split, data_dir, image_size, model_size):
    """Opens a dataset; images that come in many sizes are brought to the model's.

    A folder alone would take the size of its first image, which differs from split to split.

    Args:
        name: what `lsmha_keras.open_dataset` takes.
        split: part of it.
        data_dir: folder that holds the data, or None.
        image_size: int or `(height, width)`, or None to decide here.
        model_size: function without arguments that returns the model's `(height, width)`; called
            only when that is needed.

    Returns:
        An `ImageDataset`.

    Raises:
        ValueError: if the dataset or the split is unknown.

    Example:

    ```python
    source = open_source("pictures.npz", "test", None, None, lambda: (32, 32))
    ```
    """
    from lsmha_keras.data.open_dataset import open_dataset

    try:
        source = open_dataset(name, split, data_dir, image_size=image_size)
    except ValueError as error:
        if image_size is not None or "`image_size` is needed" not in str(error):
            raise
    else:
        if image_size is not None or not _is_folder(source, name, split, data_dir):
            return source
    return open_dataset(name, split, data_dir, image_size=model_size())


def _is_folder(source, name, split, data_dir):
    from lsmha_keras.data.open_dataset import open_dataset
    from lsmha_keras.data.sources.image_folder import ImageFolder

    if "+" in split:
        # Of parts that were joined, one tells enough.
        source = open_dataset(name, split.partition("+")[0], data_dir)
    return isinstance(source, ImageFolder)
