"""LightningDataModules, batch samplers, views and augmentation."""

from nc_lightning.batch import concatenate_views
from nc_lightning.data.augmentation import SimCLR
from nc_lightning.data.samplers import ClassBalancedBatchSampler, RandomBatchSampler, StratifiedBatchSampler
from nc_lightning.data.sources.arrays import ArrayDataModule
from nc_lightning.data.sources.digits import DigitPairsDataModule, DigitsDataModule, load_digits
from nc_lightning.data.sources.folders import ImageFolderDataModule
from nc_lightning.data.sources.hugging_face import HuggingFaceDataModule
from nc_lightning.data.sources.latent_class import LatentClassDataModule
from nc_lightning.data.sources.tiny_imagenet import TinyImageNetDataModule
from nc_lightning.data.sources.torchvision_sets import (
    CIFAR10DataModule,
    CIFAR100DataModule,
    FashionMNISTDataModule,
    STL10DataModule,
)
from nc_lightning.data.sources.web_dataset import WebDatasetDataModule

__all__ = [
    "ArrayDataModule",
    "CIFAR10DataModule",
    "CIFAR100DataModule",
    "ClassBalancedBatchSampler",
    "DigitPairsDataModule",
    "DigitsDataModule",
    "FashionMNISTDataModule",
    "HuggingFaceDataModule",
    "ImageFolderDataModule",
    "LatentClassDataModule",
    "RandomBatchSampler",
    "STL10DataModule",
    "SimCLR",
    "StratifiedBatchSampler",
    "TinyImageNetDataModule",
    "WebDatasetDataModule",
    "concatenate_views",
    "load_digits",
]
