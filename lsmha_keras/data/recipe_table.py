"""From a recipe's `[augmentation]` table to layers."""

from lsmha_keras.data.augmentation.cut_mix import CutMix
from lsmha_keras.data.augmentation.horizontal_flip import HorizontalFlip
from lsmha_keras.data.augmentation.mix_up import MixUp
from lsmha_keras.data.augmentation.one_of import OneOf
from lsmha_keras.data.augmentation.pad_crop import PadCrop
from lsmha_keras.data.augmentation.rand_augment import RandAugment
from lsmha_keras.data.augmentation.random_erasing import RandomErasing
from lsmha_keras.data.augmentation.resized_crop import ResizedCrop
from lsmha_keras.nearest import nearest


def _rand_augment(arguments):
    known = ("num_ops", "magnitude", "magnitude_std", "probability", "operations", "fill")
    known = (*known, "interpolation")
    if arguments is True:
        return RandAugment()
    if not isinstance(arguments, dict):
        raise ValueError(
            f"`rand_augment` must be true or a table with some of {', '.join(known)}. "
            f"Received: rand_augment={arguments!r}"
        )
    for key in arguments:
        if key not in known:
            raise ValueError(
                f"Unknown key of `rand_augment`{nearest(key, known)}. Expected some of "
                f"{', '.join(known)}. Received: {key}={arguments[key]!r}"
            )
    return RandAugment(**arguments)


# What `true` stands for.
DEFAULTS = {"random_resized_crop": (0.08, 1.0), "flip": 0.5, "random_erasing": 0.25}


def _or_default(key, value):
    return DEFAULTS[key] if value is True else value


# In the order in which they are applied. MixUp and CutMix follow, as one of them is chosen.
_MAKERS = {
    "random_resized_crop": lambda area: ResizedCrop(_or_default("random_resized_crop", area)),
    "pad_crop": PadCrop,
    "flip": lambda value: HorizontalFlip(_or_default("flip", value)),
    "rand_augment": _rand_augment,
    "random_erasing": lambda value: RandomErasing(_or_default("random_erasing", value)),
}
_MIXERS = {"mixup": MixUp, "cutmix": CutMix}
KEYS = (*_MAKERS, *_MIXERS)


def layers_from_table(table, image_shape, num_classes):
    """Makes the layers in the order in which they are applied; false and 0 turn one off.

    Args:
        table: see `AugmentationPolicy.from_config`.
        image_shape: `(height, width, channels)`.
        num_classes: int.

    Returns:
        A list of layers.

    Raises:
        ValueError: for an unknown key or a bad value.
    """
    for key in table:
        if key not in KEYS:
            raise ValueError(
                f"Unknown augmentation{nearest(key, KEYS)}. Expected some of {', '.join(KEYS)}. "
                f"Received: {key}={table[key]!r}"
            )
    wanted = {key: table[key] for key in KEYS if table.get(key) not in (None, False, 0)}
    _check_fit(wanted, image_shape, num_classes)
    layers = [make(wanted[key]) for key, make in _MAKERS.items() if key in wanted]
    mixers = [make(wanted[key]) for key, make in _MIXERS.items() if key in wanted]
    return layers + ([OneOf(mixers)] if len(mixers) == 2 else mixers)


def _check_fit(wanted, image_shape, num_classes):
    padding = wanted.get("pad_crop", 0)
    if isinstance(padding, int) and padding >= min(image_shape[:2]):
        raise ValueError(
            f"`pad_crop` must be smaller than the image's sides, {image_shape[0]}x"
            f"{image_shape[1]}. Received: pad_crop={padding}"
        )
    if num_classes < 2 and any(key in wanted for key in _MIXERS):
        raise ValueError(
            f"`mixup` and `cutmix` need at least 2 classes. Received: num_classes={num_classes}"
        )
