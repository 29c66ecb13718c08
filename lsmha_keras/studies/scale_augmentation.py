"""Weakens the augmentation of a recipe."""

from lsmha_keras.data.augmentation.rand_augment import RandAugment
from lsmha_keras.data.augmentation_policy import DEFAULTS


def scale_augmentation(augmentation, strength):
    """Weakens the augmentation of a recipe.

    Pixels of `pad_crop`, the magnitude of `rand_augment`, the probability of `random_erasing`, the
    alphas of `mixup` and `cutmix` and how far `random_resized_crop` may zoom in shrink with the
    strength. Flips stay, but at 0 nothing does.

    Args:
        augmentation: dict, a recipe's `[augmentation]`.
        strength: float in 0 .. 1; 1 changes nothing.

    Returns:
        A new dict.

    Raises:
        ValueError: if the strength is out of range.

    Example:
        >>> scale_augmentation({"pad_crop": 4, "flip": True, "cutmix": 1.0}, 0.5)
        {'pad_crop': 2, 'flip': True, 'cutmix': 0.5}
    """
    if isinstance(strength, bool) or not 0 <= strength <= 1:
        raise ValueError(f"`augmentation_strength` must be in 0 .. 1. Received: {strength!r}")
    if strength == 0:
        return {}
    scaled = {key: _scale(key, value, strength) for key, value in augmentation.items()}
    return {key: value for key, value in scaled.items() if value not in (0, None)}


def _scale(key, value, strength):
    if strength == 1 or key == "flip" or value is False:
        return value
    if value is True:
        value = {} if key == "rand_augment" else DEFAULTS[key]
    if key == "pad_crop":
        return round(value * strength)
    if key == "random_resized_crop":
        low, high = value
        return [high - (high - low) * strength, high]
    if key == "rand_augment":
        return {**value, "magnitude": RandAugment(**value).magnitude * strength}
    return value * strength  # a probability, or an alpha
