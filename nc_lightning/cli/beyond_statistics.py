"""Measures of features in files that class statistics do not give: of neighbors, and of other data."""

import math

import torch

from nc_lightning.geometry import ClassStatistics, Normalization, intrinsic_dimension, nc5, normalize
from nc_lightning.io.feature_files import FeatureFile, unlabeled_batches

NEIGHBORS = 20
SAMPLE_SIZE = 1000
"""Number of samples whose neighbors are searched, among themselves; all pairs of them are compared."""


def beyond_statistics(
    file: FeatureFile, stats: ClassStatistics, normalization: Normalization, ood: str | None
) -> dict[str, float]:
    """Return ``intrinsic_dimension`` on a sample of a file, and ``nc5`` if a file of other data is given.

    Raises:
        ValueError: If the features of the other file have another dimension or are not finite.
    """
    sample = normalize(file.sample(SAMPLE_SIZE), normalization)
    enough = len(sample) > NEIGHBORS
    values = {"intrinsic_dimension": float(intrinsic_dimension(sample, NEIGHBORS)) if enough else math.nan}
    if ood is None:
        return values
    total, samples = torch.zeros(stats.feature_dim, dtype=torch.float64), 0
    for z in unlabeled_batches(ood, file.keys):
        if z.shape[1] != stats.feature_dim:
            raise ValueError(f"--ood: got features of dimension {z.shape[1]}, expected {stats.feature_dim}, as in FILE")
        total += normalize(z, normalization).double().sum(0)
        samples += len(z)
    return values | {"nc5": float(nc5(stats, total / samples))}
