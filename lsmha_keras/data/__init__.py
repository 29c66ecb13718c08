"""Dataset names to pipelines, and augmentation as Keras layers."""

from lsmha_keras.data.augmentation.geometry import (
    HorizontalFlip,
    PadCrop,
    RandomErasing,
    ResizedCrop,
)
from lsmha_keras.data.augmentation.image_augmentation import ImageAugmentation, OneOf
from lsmha_keras.data.augmentation.mixing import CutMix, MixUp
from lsmha_keras.data.augmentation.rand_augment import RandAugmentPerImage
from lsmha_keras.data.augmentation_policy import AugmentationPolicy
from lsmha_keras.data.datasets import ImageDataset
from lsmha_keras.data.open_dataset import open_dataset
from lsmha_keras.data.pipelines import epoch_batches, load_dataset

__all__ = [
    "AugmentationPolicy",
    "CutMix",
    "HorizontalFlip",
    "ImageAugmentation",
    "ImageDataset",
    "MixUp",
    "OneOf",
    "PadCrop",
    "RandAugmentPerImage",
    "RandomErasing",
    "ResizedCrop",
    "epoch_batches",
    "load_dataset",
    "open_dataset",
]
