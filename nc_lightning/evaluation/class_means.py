"""Nearest class mean, of all training features or of a few samples per class."""

from typing import NamedTuple

import torch
from torch import Tensor

from nc_lightning.checks import Array, as_features, check_count
from nc_lightning.evaluation.samples import as_samples, check_dimensions, check_samples
from nc_lightning.geometry import CenterDistances, ClassStatistics
from nc_lightning.geometry.blocks import row_blocks
from nc_lightning.geometry.placement import in_float64

QUERIES_AT_ONCE = 2**14
"""Queries that are converted to float64 at a time."""


@torch.no_grad()
def nearest_class_mean(queries: Array, bank: Array, bank_labels: Array, num_classes: int) -> Tensor:
    """Classify by the nearest mean of the classes of a bank, by Euclidean distance, as ``ncc_accuracy`` does.

    Args:
        queries: Features (M, d).
        bank: Features (N, d).
        bank_labels: Labels (N,) in [0, C); leave unlabeled samples out.
        num_classes: Number of classes C. Classes that are not in the bank are never predicted.

    Returns:
        Predictions (M,); equal distances go to the lowest class.

    Raises:
        TypeError: If features are not floating point, or labels not integers.
        ValueError: If shapes do not fit, a feature is not finite, or a label lies outside [0, C).

    Source:
        Mensink, Verbeek, Perronnin, Csurka (2013), Distance-based image classification, with the Euclidean distance.

    Example:
        >>> bank, labels = torch.tensor([[0.0, 0.0], [2.0, 0.0], [9.0, 0.0]]), torch.tensor([0, 0, 1])
        >>> nearest_class_mean(torch.tensor([[4.0, 0.0], [6.0, 0.0]]), bank, labels, num_classes=2).tolist()
        [0, 1]
    """
    queries = as_features(queries, "queries")
    bank, bank_labels = as_samples(bank, bank_labels, "bank")
    check_samples(queries, None, num_classes, "queries")
    check_samples(bank, bank_labels, num_classes, "bank")
    check_dimensions(queries, bank)
    centers = ClassStatistics(num_classes, bank.shape[1]).to(bank.device)
    for rows, labels in zip(bank.split(QUERIES_AT_ONCE), bank_labels.split(QUERIES_AT_ONCE), strict=True):
        centers.update(rows, labels)
    to_centers = CenterDistances(centers)
    device = centers.means.device
    found = [to_centers.nearest(in_float64(rows, device)) for rows in queries.split(QUERIES_AT_ONCE)]
    return torch.cat(found).to(queries.device)


class FewShot(NamedTuple):
    """Accuracy over draws of a few samples per class.

    Attributes:
        accuracy: Mean over draws, range [0, 1].
        interval: Half the width of the 95 % confidence interval of the mean, 1.96 standard errors.
    """

    accuracy: float
    interval: float


@torch.no_grad()
def few_shot_accuracy(
    queries: Array,
    query_labels: Array,
    bank: Array,
    bank_labels: Array,
    num_classes: int,
    shots: int,
    draws: int = 100,
    seed: int = 0,
) -> FewShot:
    """Compute the accuracy of the nearest class mean when means are those of a few samples, over random draws.

    Every draw takes ``shots`` samples of each class of the bank, without replacement, and classifies all queries.
    Classes that are not in the bank are never predicted, so their queries count as wrong.

    Args:
        queries: Features (M, d).
        query_labels: Labels (M,) in [0, C).
        bank: Features (N, d).
        bank_labels: Labels (N,) in [0, C); leave unlabeled samples out.
        num_classes: Number of classes C.
        shots: Samples per class.
        draws: Number of draws, at least 2.
        seed: Seed of the draws, which are the same on every device.

    Returns:
        Mean accuracy, and half its 95 % interval.

    Raises:
        TypeError: If features are not floating point, or labels not integers.
        ValueError: If shapes do not fit, a feature is not finite, a label lies outside [0, C), or a class of the bank
            has fewer than ``shots`` samples.

    Source:
        Snell, Swersky, Zemel (2017), Prototypical networks for few-shot learning, arXiv 1703.05175, on frozen features.

    Example:
        >>> bank, labels = torch.tensor([[0.0], [1.0], [8.0], [9.0]]), torch.tensor([0, 0, 1, 1])
        >>> few_shot_accuracy(bank, labels, bank, labels, num_classes=2, shots=1)
        FewShot(accuracy=1.0, interval=0.0)
    """
    check_count("shots", shots)
    check_count("draws", draws, at_least=2)
    queries, query_labels = as_samples(queries, query_labels, "queries")
    bank, bank_labels = as_samples(bank, bank_labels, "bank")
    check_samples(queries, query_labels, num_classes, "queries")
    check_samples(bank, bank_labels, num_classes, "bank")
    check_dimensions(queries, bank)
    present, chosen = draw_shots(bank_labels.cpu(), shots, draws, seed)
    z = in_float64(bank)
    origin = z.mean(0)  # a common offset would cost the distances their precision
    candidates, targets = present.to(z.device), query_labels.to(z.device, torch.int64)
    correct = []
    for some in row_blocks(draws, len(present) * z.shape[1]):
        index = chosen[some].to(z.device)
        means = torch.zeros_like(z[index[:, :, 0]])
        for shot in range(shots):  # not at once: those of all shots are as large as the bank
            means += (z[index[:, :, shot]] - origin) / shots
        correct.append(_count_correct(queries, targets, origin, means, candidates))
    accuracies = torch.cat(correct) / len(queries)
    return FewShot(accuracies.mean().item(), 1.96 * accuracies.std().item() / draws**0.5)


def _count_correct(queries: Tensor, targets: Tensor, origin: Tensor, means: Tensor, candidates: Tensor) -> Tensor:
    """Return the number (D,) of queries whose nearest mean is of their class, for class means (D, P, d) of draws."""
    offsets, of_draws = means.square().sum(2).flatten(), means.flatten(0, 1)
    correct = means.new_zeros(len(means))
    for rows in row_blocks(len(queries), len(of_draws)):
        z = in_float64(queries[rows], means.device) - origin
        nearest = torch.addmm(offsets, z, of_draws.T, alpha=-2).view(len(z), len(means), -1).argmin(2)
        correct += (candidates[nearest] == targets[rows, None]).sum(0)
    return correct


def draw_shots(labels: Tensor, shots: int, draws: int, seed: int) -> tuple[Tensor, Tensor]:
    """Draw samples of each class: return the classes (P,) that are present, and indices (draws, P, shots).

    Raises:
        ValueError: If a class that is present has fewer than ``shots`` samples.

    Example:
        >>> present, chosen = draw_shots(torch.tensor([0, 2, 0, 2]), shots=2, draws=5, seed=0)
        >>> present.tolist(), chosen.sort(2).values[0].tolist()
        ([0, 2], [[0, 2], [1, 3]])
    """
    generator = torch.Generator().manual_seed(seed)
    present, counts = labels.unique(return_counts=True)
    if counts.min() < shots:
        least = int(counts.argmin())
        raise ValueError(
            f"shots: got {shots}, expected at most {int(counts[least])}, the samples of class {int(present[least])}"
        )
    members = labels.argsort(stable=True).split(counts.tolist())
    drawn = [m[torch.rand(draws, len(m), generator=generator).topk(shots).indices] for m in members]
    return present.long(), torch.stack(drawn, 1)
