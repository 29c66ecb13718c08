"""CutMix."""

import keras
import numpy as np

from lsmha_keras.arguments import plain
from lsmha_keras.data.augmentation.image_augmentation import ImageAugmentation
from lsmha_keras.data.augmentation.mix_up import blend, check_alpha


@keras.saving.register_keras_serializable(package="lsmha_keras")
class CutMix(ImageAugmentation):
    """Replaces a box of each image by the same box of another one of the batch.

    The box has the image's aspect ratio and the area `1 - w`, `w ~ Beta(alpha, alpha)` drawn for
    each image, about a random centre; what lies outside the image is cut off, and the labels are
    mixed in proportion to the areas that are left.

    Args:
        alpha: positive float.
        seed: see `ImageAugmentation`.
        **kwargs: of `keras.layers.Layer`.

    Call arguments:
        images: dictionary with "images" and one-hot "labels".

    Raises:
        ValueError: if `alpha` is not positive, or from a call without labels.

    Example:
        >>> import numpy as np
        >>> images, labels = np.zeros((4, 8, 8, 3), "uint8"), np.eye(4, dtype="float32")
        >>> batch = {"images": images, "labels": labels}
        >>> tuple(CutMix(1.0, seed=0)(batch)["labels"].shape)
        (4, 4)

    References:
        - [CutMix](https://arxiv.org/abs/1905.04899)
    """

    mixes_labels = True

    def __init__(self, alpha=1.0, seed=None, **kwargs):
        check_alpha(alpha)
        super().__init__(seed=seed, **kwargs)
        self.alpha = plain(alpha)

    def augment(self, images, labels, rng):
        count, height, width, _ = images.shape
        partners = rng.permutation(count)
        side = np.sqrt(1 - rng.beta(self.alpha, self.alpha, count))
        tops, bottoms = _interval(rng, side, height)
        lefts, rights = _interval(rng, side, width)
        mixed = images.copy()
        boxes = zip(tops, bottoms, lefts, rights, strict=True)
        for row, (top, bottom, left, right) in enumerate(boxes):
            mixed[row, top:bottom, left:right] = images[partners[row], top:bottom, left:right]
        cut = (bottoms - tops) * (rights - lefts) / (height * width)
        return mixed, blend(labels, (1 - cut).astype("float32"), partners)

    def get_config(self):
        return {**super().get_config(), "alpha": self.alpha}


def _interval(rng, side, size):
    """Draws intervals of length `side * size` about random centres, cut at 0 and `size`."""
    length = (side * size).astype("int64")
    start = rng.integers(0, size, len(side)) - length // 2
    return np.maximum(start, 0), np.minimum(start + length, size)
