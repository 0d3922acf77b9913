"""LightningDataModules, batch samplers, views and augmentation."""

from nc_lightning.data.arrays import ArrayDataModule
from nc_lightning.data.augmentation import SimCLR
from nc_lightning.data.digits import DigitPairsDataModule, DigitsDataModule
from nc_lightning.data.latent_class import LatentClassDataModule
from nc_lightning.data.samplers import ClassBalancedBatchSampler, RandomBatchSampler, StratifiedBatchSampler
from nc_lightning.data.views import concatenate_views

__all__ = [
    "ArrayDataModule",
    "ClassBalancedBatchSampler",
    "DigitPairsDataModule",
    "DigitsDataModule",
    "LatentClassDataModule",
    "RandomBatchSampler",
    "SimCLR",
    "StratifiedBatchSampler",
    "concatenate_views",
]
