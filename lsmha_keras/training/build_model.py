"""Builds the model that a recipe trains."""

import inspect

from lsmha_keras.nearest import nearest

_FROM_THE_DATA = {"backbone", "num_classes", "preprocessor", "image_shape", "class_names"}


def build_model(recipe, source):
    """Builds the model of a recipe's `[model]`, with the classes of its data.

    Args:
        recipe: `Recipe`.
        source: `ImageDataset` to train on.

    Returns:
        A `CCTImageClassifier`.

    Raises:
        ValueError: if the preset or an override is unknown, naming the nearest, a kept head has
            another number of classes than the data, the blocks to replace are not there, or the
            model would not grow.

    Example:

    ```python
    model = build_model(recipe, lsmha_keras.open_dataset("pictures.npz"))
    ```
    """
    from lsmha_keras.models import CCTBackbone, CCTImageClassifier
    from lsmha_keras.surgery.grow import grow
    from lsmha_keras.surgery.replace_blocks import replace_blocks

    section = recipe.model
    parameters = [
        name
        for owner in (CCTBackbone, CCTImageClassifier)
        for name in inspect.signature(owner.__init__).parameters
    ]
    known = set(parameters) - _FROM_THE_DATA - {"self", "kwargs"}
    for key in section.overrides:
        if key not in known:
            raise ValueError(
                f"[model] overrides may be {', '.join(sorted(known))}{nearest(key, known)}. "
                f"Received: model.overrides.{key}"
            )
    arguments = dict(section.overrides)
    num_classes = len(source.class_names)
    if not section.keep_head:
        arguments |= {"num_classes": num_classes, "class_names": source.class_names}
    model = CCTImageClassifier.from_preset(
        section.preset,
        image_shape=section.image_shape,
        load_weights=section.load_weights,
        **arguments,
    )
    if model.num_classes != num_classes:
        raise ValueError(
            f"`model.keep_head` needs a preset with the {num_classes} classes of "
            f"{recipe.data.name}. Received: {section.preset} with {model.num_classes} classes"
        )
    if section.replace_blocks:
        model = replace_blocks(model, section.replace_blocks, section.replace_design)
    if section.grow_layers or section.grow_mlp_dim:
        model = grow(model, section.grow_layers, section.grow_mlp_dim)
    return model
