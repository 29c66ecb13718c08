"""Opens a dataset for a model."""


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
