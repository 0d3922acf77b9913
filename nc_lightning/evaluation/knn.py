"""The k-nearest-neighbor classifier, whose votes are weighted by similarity."""

from collections.abc import Sequence

import torch
from torch import Tensor

from nc_lightning.checks import Array, as_features, as_labels, check_count, check_number
from nc_lightning.evaluation.neighbors import nearest_neighbors
from nc_lightning.evaluation.samples import as_samples, check_samples
from nc_lightning.geometry.blocks import row_blocks
from nc_lightning.geometry.placement import in_float64

TEMPERATURE = 0.07
"""Temperature of the weights in Wu et al. (2018)."""

QUERIES_AT_ONCE = 2**14
"""Queries whose neighbors and votes `knn_predict` has in memory at a time."""


def class_votes(similarities: Array, labels: Array, num_classes: int, temperature: float | None) -> Tensor:
    """Sum the votes of neighbors for their classes, with weights e^{s / tau}, divided by the sum of all weights.

    The largest similarity is subtracted in the exponent, so that no weight overflows.

    Args:
        similarities: Similarities (M, k), in descending order.
        labels: Labels (M, k) of the neighbors, in [0, C).
        num_classes: Number of classes C.
        temperature: tau > 0; None for equal weights.

    Returns:
        Shares (M, C) of the votes, float64, range [0, 1]; each row has the sum 1.

    Raises:
        ValueError: If the temperature is not positive.

    Source:
        Wu, Xiong, Yu, Lin (2018), Unsupervised feature learning via non-parametric instance discrimination,
        arXiv 1805.01978, section 3.4.

    Example:
        >>> class_votes(torch.tensor([[0.9, 0.5, 0.5]]), torch.tensor([[0, 1, 1]]), 2, None)
        tensor([[0.3333, 0.6667]], dtype=torch.float64)
        >>> class_votes(torch.tensor([[0.9, 0.5, 0.5]]), torch.tensor([[0, 1, 1]]), 2, 0.07).argmax(1)
        tensor([0])
    """
    similarities, labels = in_float64(as_features(similarities, "similarities")), as_labels(labels)
    if temperature is None:
        weights = torch.ones_like(similarities)
    else:
        check_number("temperature", temperature, above=0)
        weights = ((similarities - similarities[:, :1]) / temperature).exp()
    votes = weights.new_zeros(len(weights), num_classes)
    votes.scatter_add_(1, labels.to(weights.device, torch.int64), weights)
    return votes / weights.sum(1, keepdim=True)


def voted(similarities: Tensor, labels: Tensor, num_classes: int, temperature: float | None) -> Tensor:
    """Return the class (M,) with the most votes, the lowest of equals; see `class_votes` for the arguments.

    The votes of a block of rows are in memory at a time, not those of all M x C.

    Example:
        >>> voted(torch.tensor([[0.9, 0.5, 0.5]]), torch.tensor([[0, 1, 1]]), 2, None)
        tensor([1])
    """
    classes = torch.empty(len(labels), dtype=torch.int64, device=similarities.device)
    for rows in row_blocks(len(labels), num_classes):
        classes[rows] = class_votes(similarities[rows], labels[rows], num_classes, temperature).argmax(1)
    return classes


@torch.no_grad()
def knn_scores(
    queries: Array,
    bank: Array,
    bank_labels: Array,
    num_classes: int,
    k: int,
    temperature: float | None = TEMPERATURE,
) -> Tensor:
    """Compute the shares of the classes in the votes of the k nearest neighbors; see `class_votes`.

    Args:
        queries: Features (M, d).
        bank: Features (N, d), N >= k.
        bank_labels: Labels (N,) in [0, C); leave unlabeled samples out.
        num_classes: Number of classes C.
        k: Number of neighbors.
        temperature: tau > 0 of the weights e^{s / tau}; None for equal weights.

    Returns:
        Scores (M, C), float64, range [0, 1].

    Raises:
        TypeError: If features are not floating point, or labels not integers.
        ValueError: If shapes do not fit, a feature is not finite, a label lies outside [0, C), or k is larger than N.

    Example:
        >>> bank, labels = torch.tensor([[1.0, 0.0], [0.0, 1.0], [0.1, 1.0]]), torch.tensor([0, 1, 1])
        >>> knn_scores(torch.tensor([[1.0, 0.2]]), bank, labels, num_classes=2, k=1)
        tensor([[1., 0.]], dtype=torch.float64)
    """
    bank, bank_labels = as_samples(bank, bank_labels, "bank")
    check_samples(bank, bank_labels, num_classes, "bank")
    similarities, indices = nearest_neighbors(queries, bank, k)
    labels = bank_labels[indices.to(bank_labels.device)]
    return class_votes(similarities, labels, num_classes, temperature)


@torch.no_grad()
def knn_predict(
    queries: Array,
    bank: Array,
    bank_labels: Array,
    num_classes: int,
    k: int | Sequence[int],
    temperature: float | None = TEMPERATURE,
) -> Tensor:
    """Classify by the weighted votes of the k nearest neighbors; several k share one search.

    Equal votes go to the lowest class, as in scikit-learn. With ``temperature=None``, predictions are those of its
    ``KNeighborsClassifier(k, metric="cosine")``.

    Args:
        queries: Features (M, d).
        bank: Features (N, d), N >= k.
        bank_labels: Labels (N,) in [0, C); leave unlabeled samples out.
        num_classes: Number of classes C.
        k: Number of neighbors, or several.
        temperature: tau > 0 of the weights e^{s / tau}; None for equal weights.

    Returns:
        Predictions (M,), or (K, M) for K values of k.

    Raises:
        TypeError: If features are not floating point, or labels not integers.
        ValueError: If shapes do not fit, a feature is not finite, a label lies outside [0, C), or k is larger than N.

    Source:
        Wu, Xiong, Yu, Lin (2018), arXiv 1805.01978; k = 200 and tau = 0.07 are theirs.

    Example:
        >>> bank, labels = torch.tensor([[1.0, 0.0], [0.0, 1.0], [0.1, 1.0]]), torch.tensor([0, 1, 1])
        >>> knn_predict(torch.tensor([[1.0, 0.2]]), bank, labels, num_classes=2, k=(1, 3), temperature=None)
        tensor([[0],
                [1]])
    """
    several = [k] if isinstance(k, int) else list(k)
    for count in several:
        check_count("k", count)
    if not several:
        raise ValueError("k: got no number of neighbors, expected at least one")
    queries = as_features(queries, "queries")
    bank, bank_labels = as_samples(bank, bank_labels, "bank")
    check_samples(bank, bank_labels, num_classes, "bank")
    predicted = []
    for rows in queries.split(QUERIES_AT_ONCE):
        similarities, indices = nearest_neighbors(rows, bank, max(several))
        labels = bank_labels[indices.to(bank_labels.device)]
        classes = [voted(similarities[:, :n], labels[:, :n], num_classes, temperature) for n in several]
        predicted.append(torch.stack(classes))
    found = torch.cat(predicted, 1).to(queries.device)
    return found[0] if isinstance(k, int) else found
