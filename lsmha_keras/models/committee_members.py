"""The members of a committee: which ones may vote together, and what they share."""

import os

import keras

from lsmha_keras.errors import InputError
from lsmha_keras.models.cct_classifier import CCTClassifier


def load_members(members):
    """Loads those of the members that are given by the name or directory of a preset.

    Args:
        members: list of classifiers, names and directories.

    Returns:
        A list of classifiers.

    Raises:
        ValueError: if there are none, or it is no list.
    """
    if isinstance(members, (str, os.PathLike, keras.Model)) or not len(members):
        raise InputError(
            "`members` must be a list of at least one classifier or preset. "
            f"Received: members={members!r}"
        )
    is_name = [isinstance(member, (str, os.PathLike)) for member in members]
    return [
        CCTClassifier.from_preset(member) if named else member
        for member, named in zip(members, is_name, strict=True)
    ]


def check_members(members):
    """Refuses members that differ in classes, kind of output or kind of image.

    Args:
        members: list of `CCTImageClassifier`.

    Raises:
        ValueError: names what differs, or the member that is something else.
    """
    for i, member in enumerate(members):
        if not isinstance(member, CCTClassifier):
            raise InputError(
                "Every member must be a `CCTImageClassifier` or the name or directory of its "
                f"preset. Received: {type(member).__name__} as member {i}"
            )
        if keras.activations.get(member.activation).__name__ not in ("linear", "softmax"):
            raise InputError(
                "Every member must give logits or a softmax. "
                f"Received: activation={member.activation!r} of member {i}"
            )
    _check_equal("have the same number of classes", "num_classes", [m.num_classes for m in members])
    _check_class_names(members)
    kinds = [input_kind(member) for member in members]
    _check_equal("take the same kind of input", "inputs", kinds)
    has_preprocessor = [member.preprocessor is not None for member in members]
    _check_equal("have a preprocessor or none of them", "preprocessor", has_preprocessor)
    shapes = [member.image_shape for member in members]
    if kinds[0] != "images":
        if kinds[0] != "texts":
            _check_equal("take series or ids of one shape", "shapes", shapes)
            sizes = [member.backbone.vocabulary_size for member in members]
            _check_equal("know as many ids", "vocabulary_size", sizes)
        return
    _check_equal("take as many channels", "channels", [shape[-1] for shape in shapes])
    if len(set(shapes)) > 1 and not all(map(_resizes, members)):
        raise InputError(
            "Members for images of different sizes must each resize them: give them a "
            f"`CCTImageConverter` with `image_size`. Received: image shapes {shapes}"
        )


def input_kind(member):
    """Returns what a classifier takes: "images", "texts", "ids" or "series"."""
    if len(member.image_shape) == 3:
        return "images"
    if member.backbone.vocabulary_size is None:
        return "series"
    return "ids" if member.preprocessor is None else "texts"


def _check_class_names(members):
    """Refuses members whose class names or their order differ; members without any pass."""
    named = [(i, member.class_names) for i, member in enumerate(members) if member.class_names]
    for i, names in named[1:]:
        first, expected = named[0]
        if names != expected:
            label = next(k for k, name in enumerate(names) if name != expected[k])
            raise InputError(
                "All members must have the same class names in the same order. Received: label "
                f"{label} is {expected[label]!r} for member {first} and {names[label]!r} for "
                f"member {i}"
            )


def _check_equal(what, name, values):
    if len(set(values)) > 1:
        raise InputError(f"All members must {what}. Received: {name}={values}")


def _resizes(member):
    return getattr(_converter(member), "image_size", None) is not None


def _converter(member):
    return getattr(member.preprocessor, "image_converter", None)


def group_by_preprocessing(members):
    """Groups members by their preprocessing.

    Args:
        members: list of `CCTImageClassifier`.

    Returns:
        A dict from the name of an input to its preprocessor, and the input's name for each member.
    """
    ways, sources, preprocessors = [], [], {}
    for member in members:
        kind = input_kind(member)
        # What decides about images is the converter; a text's preprocessor has no parts.
        layer = member.preprocessor if kind == "texts" else _converter(member)
        way = None if layer is None else {**layer.get_config(), "name": None}
        if way not in ways:
            ways.append(way)
        sources.append(f"{kind}_{ways.index(way)}")
        preprocessors.setdefault(sources[-1], member.preprocessor)
    return preprocessors, sources
