"""LightningDataModules, batch samplers, views and augmentation."""

from nc_lightning.data.arrays import ArrayDataModule
from nc_lightning.data.augmentation import SimCLR
from nc_lightning.data.digits import DigitPairsDataModule, DigitsDataModule
from nc_lightning.data.folders import ImageFolderDataModule
from nc_lightning.data.latent_class import LatentClassDataModule
from nc_lightning.data.samplers import ClassBalancedBatchSampler, RandomBatchSampler, StratifiedBatchSampler
from nc_lightning.data.tiny_imagenet import TinyImageNetDataModule
from nc_lightning.data.torchvision_sets import (
    CIFAR10DataModule,
    CIFAR100DataModule,
    FashionMNISTDataModule,
    STL10DataModule,
)
from nc_lightning.data.views import concatenate_views

__all__ = [
    "ArrayDataModule",
    "CIFAR10DataModule",
    "CIFAR100DataModule",
    "ClassBalancedBatchSampler",
    "DigitPairsDataModule",
    "DigitsDataModule",
    "FashionMNISTDataModule",
    "ImageFolderDataModule",
    "LatentClassDataModule",
    "RandomBatchSampler",
    "STL10DataModule",
    "SimCLR",
    "StratifiedBatchSampler",
    "TinyImageNetDataModule",
    "concatenate_views",
]
