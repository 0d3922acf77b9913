"""All measures of given statistics or features."""

import warnings
from collections.abc import Callable, Iterable

import torch
from torch import Tensor

from nc_lightning.checks import Array, as_features, as_labels, check_features, check_labels
from nc_lightning.geometry.centers import CenterDistances
from nc_lightning.geometry.measures import CENTER_MEASURES, STATISTICS_MEASURES
from nc_lightning.geometry.statistics import ClassStatistics


def caveats(stats: ClassStatistics) -> str:
    """Return a line saying why measures of these statistics are undefined or misleading; empty if they are sound.

    Example:
        >>> caveats(ClassStatistics(3, 2).update(torch.eye(2), torch.tensor([0, 1])))[:52]
        '1 of 3 classes are absent, measures run over the oth'
    """
    present, singles = int(stats.present.sum()), int((stats.counts == 1).sum())
    if present == 0:
        return "there is no sample, so that every measure is NaN"
    reasons = []
    if present < stats.num_classes:
        reasons.append(
            f"{stats.num_classes - present} of {stats.num_classes} classes are absent, measures run over the others"
        )
    if singles > 0:
        who = "1 class has" if singles == 1 else f"{singles} classes have"
        reasons.append(f"{who} a single sample and no variance within, which lowers nc1 and cdnv")
    if present == 1:
        reasons.append("there is a single class, so that measures between classes are NaN")
    elif not stats.between_trace > 0:
        reasons.append("all class means coincide, so that nc1 is infinite or NaN and nc2 is NaN")
    return "; ".join(reasons)


def statistics_measures(stats: ClassStatistics) -> dict[str, Tensor]:
    """Compute every measure of class statistics on the CPU, as 0-dimensional float64 tensors by key.

    Without samples every value is NaN.
    """
    stats = stats.to("cpu")
    if not stats.present.any():
        return {key: torch.tensor(torch.nan, dtype=torch.float64) for key in STATISTICS_MEASURES}
    return {key: function(stats) for key, function in STATISTICS_MEASURES.items()}


def all_measures(stats: ClassStatistics, to_centers: CenterDistances) -> dict[str, float]:
    """Compute every measure of class statistics and distances to class centers, by key."""
    values = statistics_measures(stats) | {key: function(to_centers) for key, function in CENTER_MEASURES.items()}
    return {key: float(value) for key, value in values.items()}


def survey(
    read: Callable[[], Iterable[tuple[Tensor, Tensor]]],
    num_classes: int,
    feature_dim: int,
    device: torch.device | str = "cpu",
) -> tuple[dict[str, float], ClassStatistics]:
    """Compute every measure of class statistics and centers in two passes over batches, without keeping features.

    Args:
        read: Function that returns the batches, features (n, d) and labels (n,); called twice.
        num_classes: Number of classes C.
        feature_dim: Dimension d.
        device: Device of the features.

    Returns:
        Measures by key, and the class statistics.

    Example:
        >>> from nc_lightning.geometry import simplex_etf
        >>> batches = [(simplex_etf(4, 3), torch.arange(4))] * 5
        >>> values, stats = survey(lambda: batches, num_classes=4, feature_dim=3)
        >>> round(values["effective_rank"], 6), stats.num_samples
        (3.0, 20.0)
    """
    stats = ClassStatistics(num_classes, feature_dim, device)
    for z, labels in read():
        stats.update(z, labels)
    to_centers = CenterDistances(stats)
    for z, labels in read():
        to_centers.update(z, labels)
    return all_measures(stats, to_centers), stats


def measure(z: Array, labels: Array, num_classes: int | None = None) -> dict[str, float]:
    """Compute every measure of features held in memory.

    The features are not normalized: apply `unit_ball` or `unit_sphere` first if the model was trained with it.

    Args:
        z: Features (N, d); a tensor of floating point, or an array or list of rows.
        labels: Classes (N,), integers in [0, num_classes); a tensor, array or list.
        num_classes: Number of classes C; None for the largest label plus one.

    Returns:
        Measures by key.

    Raises:
        TypeError: If ``z`` is a tensor that is not floating point, or ``labels`` not integer.
        ValueError: If shapes do not fit, there is no sample, a label is out of range, or a feature is not finite.

    Example:
        >>> from nc_lightning.geometry import simplex_etf
        >>> labels = torch.arange(4).repeat(5)
        >>> geometry = measure(simplex_etf(4, 3)[labels], labels)
        >>> round(geometry["effective_rank"], 6), round(geometry["nc1"], 6), geometry["ncc_accuracy"]
        (3.0, 0.0, 1.0)
    """
    z, labels = as_features(z), as_labels(labels)
    check_features(z)
    check_labels(labels, len(z))
    if len(z) == 0:
        raise ValueError("z: got 0 samples, expected at least 1")
    if num_classes is None:
        num_classes = int(labels.max()) + 1
    values, stats = survey(lambda: [(z, labels)], num_classes, z.shape[1], z.device)
    if caveats(stats):
        warnings.warn(f"measure: {caveats(stats)}", stacklevel=2)
    return values
