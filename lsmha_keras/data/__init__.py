"""Dataset names to pipelines, and augmentation as Keras layers."""

from lsmha_keras.data.augmentation.cut_mix import CutMix
from lsmha_keras.data.augmentation.horizontal_flip import HorizontalFlip
from lsmha_keras.data.augmentation.image_augmentation import ImageAugmentation
from lsmha_keras.data.augmentation.mix_up import MixUp
from lsmha_keras.data.augmentation.one_of import OneOf
from lsmha_keras.data.augmentation.pad_crop import PadCrop
from lsmha_keras.data.augmentation.rand_augment import RandAugment
from lsmha_keras.data.augmentation.random_erasing import RandomErasing
from lsmha_keras.data.augmentation.resized_crop import ResizedCrop
from lsmha_keras.data.augmentation_policy import AugmentationPolicy
from lsmha_keras.data.epoch_batches import epoch_batches
from lsmha_keras.data.image_dataset import ImageDataset
from lsmha_keras.data.load_dataset import load_dataset
from lsmha_keras.data.open_dataset import open_dataset

__all__ = [
    "AugmentationPolicy",
    "CutMix",
    "HorizontalFlip",
    "ImageAugmentation",
    "ImageDataset",
    "MixUp",
    "OneOf",
    "PadCrop",
    "RandAugment",
    "RandomErasing",
    "ResizedCrop",
    "epoch_batches",
    "load_dataset",
    "open_dataset",
]
