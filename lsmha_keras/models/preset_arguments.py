"""The arguments of `from_preset`: their names, and which of them the weights depend on."""

import inspect

from lsmha_keras.errors import InputError, nearest
from lsmha_keras.models.blocks import block_kinds, count_heads_blocks

# Weights fit any value of these. All other arguments of a backbone determine the weights.
_FREE = {
    "image_shape",  # except the channels; position embeddings are resized
    "spatial_dropout",
    "dropout_rate",
    "attention_dropout",
    "head_dropout",
    "head_dropout_by",
    "token_keep",
    "token_reduction",
    "token_return_after",
    "stochastic_depth_rate",
    "layer_norm_epsilon",
    "dtype",
    "name",
    "trainable",
}
# Kinds of blocks and of attention with weights for each position of the token grid.
_OF_A_GRID = ("spectral", "super", "normlin")


def check_arguments(given, cls, base=("name", "trainable"), hints=None):
    """Refuses unknown arguments, which Keras's functional models ignore.

    Args:
        given: names of the arguments.
        cls: class of the model.
        base: names of arguments that it passes to its base classes.
        hints: optional `{name: sentence}` for arguments that belong elsewhere.

    Raises:
        ValueError: if a name is unknown; names the nearest.
    """
    known = {*arguments_of(cls), *base}
    for name in given:
        if name not in known:
            hint = (hints or {}).get(name, f"Its arguments are {', '.join(sorted(known))}")
            raise InputError(
                f"`{cls.__name__}` has no argument `{name}`{nearest(name, known)}. {hint}. "
                f"Received: {name}"
            )


def arguments_of(cls):
    """Returns the names of a class's own arguments."""
    return set(inspect.signature(cls.__init__).parameters) - {"self", "kwargs"}


def split_arguments(given, head_cls, backbone_cls):
    """Splits the arguments of `from_preset` into those of the classifier and of its backbone.

    Args:
        given: dict of arguments.
        head_cls: class of the classifier, which also takes `compile`.
        backbone_cls: class of the backbone.

    Returns:
        Two dicts; `name` and `trainable` go to the classifier.

    Raises:
        ValueError: if neither has such an argument; names the nearest.
    """
    own = (arguments_of(head_cls) | {"name", "trainable", "compile"}) - {"backbone"}
    inner = arguments_of(backbone_cls)
    for key in given:
        if key not in own | inner:
            raise InputError(
                f"`from_preset` takes {', '.join(sorted(own | inner))}"
                f"{nearest(key, own | inner)}. Received: {key}"
            )
    return (
        {key: value for key, value in given.items() if key in own},
        {key: value for key, value in given.items() if key not in own},
    )


def check_structure(preset, backbone_cls, saved, overrides):
    """Refuses to load weights into a backbone of another structure.

    Weights for another number or width of heads often have the same shapes: they would load and
    compute nonsense.

    Args:
        preset: name of the preset, for the message.
        backbone_cls: class of the backbone, whose defaults fill in for missing arguments.
        saved: dict of the preset's backbone arguments.
        overrides: dict of arguments that override them.

    Raises:
        ValueError: if an override changes an argument that the weights depend on.
    """
    if not overrides:
        return
    parameters = inspect.signature(backbone_cls.__init__).parameters
    saved = {**{name: value.default for name, value in parameters.items()}, **saved}
    asked = {**saved, **overrides}
    changed = [
        key
        for key in overrides
        if key not in _FREE and _comparable(asked, key) != _comparable(saved, key)
    ]
    # The number of channels is fixed; height and width are, too, if weights depend on the grid.
    fixed = slice(0 if _has_weights_of_a_grid(asked) else 2, None)
    shape = "image_shape" in asked  # sequences have none
    if shape and tuple(asked["image_shape"])[fixed] != tuple(saved["image_shape"])[fixed]:
        changed.append("image_shape")
    if changed:
        raise InputError(
            f"The weights of {str(preset)!r} were trained with "
            f"{', '.join(f'{key}={saved[key]}' for key in changed)} and fit no other "
            "structure. Leave these arguments out, or pass `load_weights=False` (in a recipe: "
            "`load_weights = false` under [model]) for random weights. Received: "
            f"{', '.join(f'{key}={asked[key]}' for key in changed)}"
        )


def _has_weights_of_a_grid(config):
    if not _has_blocks(config):
        return False
    kinds = config["attention"]
    names = {*block_kinds(config), *([kinds] if isinstance(kinds, str) else kinds)}
    return not names.isdisjoint(_OF_A_GRID)


def _has_blocks(config):
    """Returns whether a config has our arguments; a user's subclass may have its own instead."""
    return {"num_layers", "hidden_dim", "attention"} <= config.keys()


def _comparable(config, key):
    """Returns an argument in a comparable form: one value becomes a list with one per block."""
    if not _has_blocks(config):
        return config[key]
    if key == "blocks":
        return block_kinds(config)
    if key not in ("num_heads", "head_dim"):
        return config[key]
    blocks = count_heads_blocks(block_kinds(config))
    heads, dims = (
        list(config[name]) if isinstance(config[name], (list, tuple)) else [config[name]] * blocks
        for name in ("num_heads", "head_dim")
    )
    if key == "num_heads":
        return heads
    return [
        config["hidden_dim"] // count if dim is None else dim
        for count, dim in zip(heads, dims, strict=False)
    ]
