"""Representation geometry as torchmetrics."""

from nc_lightning.metrics.classifier import NC3, NC4
from nc_lightning.metrics.lidar import LiDAR
from nc_lightning.metrics.neural_collapse import NC1, NC2, EffectiveRank, NeuralCollapse, Spectrum
from nc_lightning.metrics.spread import Alignment, SelfCluster, Uniformity

__all__ = [
    "NC1",
    "NC2",
    "NC3",
    "NC4",
    "Alignment",
    "EffectiveRank",
    "LiDAR",
    "NeuralCollapse",
    "SelfCluster",
    "Spectrum",
    "Uniformity",
]
