"""Opens the data of a recipe."""

from lsmha_keras.data.open_for_model import model_image_size, open_source

PARTS = ("train", "validation", "test")


def open_recipe_data(recipe, data_dir=None, parts=PARTS):
    """Opens the data of a recipe's `[data]`.

    Args:
        recipe: `Recipe`.
        data_dir: folder that holds the data, or None.
        parts: which of "train", "validation" and "test" to open.

    Returns:
        A dict from part to `ImageDataset`, without the parts that the recipe does not have.

    Raises:
        ValueError: if the data are not there, or the parts have different classes.

    Example:

    ```python
    sources = open_recipe_data(recipe, parts=["train", "validation"])
    ```
    """
    data, model = recipe.data, recipe.model
    splits = {part: getattr(data, f"{part}_split") for part in parts}
    sources = {
        part: open_source(
            data.name,
            split,
            data_dir,
            data.image_size,
            lambda: model.image_shape[:2] if model.image_shape else model_image_size(model.preset),
        )
        for part, split in splits.items()
        if split is not None
    }
    for part, source in sources.items():
        if source.class_names != sources["train"].class_names:
            raise ValueError(
                f"The splits of {data.name} must have the same classes. Received: "
                f"{data.train_split} with {len(sources['train'].class_names)}, {splits[part]} with "
                f"{len(source.class_names)}, or other names"
            )
    return sources
