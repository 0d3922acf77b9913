"""Class statistics: the summary of features that the collapse measures need, computed in one pass."""

from collections.abc import Callable
from typing import Any, TypeVar

import torch
from torch import Tensor

from nc_lightning.checks import Array, as_features, as_labels, check_count, check_features, check_labels, check_values
from nc_lightning.geometry.placement import in_float64, outside_inference, statistics_device

T = TypeVar("T")


class ClassStatistics:
    """Counts, class means, pooled within-class scatter and per-class trace of a stream of features.

    Batches and streams are merged by Chan's update of central moments, which avoids differences of large numbers: the
    within-class scatter stays exact to rounding even if classes have collapsed to their means, where raw second moments
    lose all precision. The state has C d + d^2 + 2 C float64 numbers, for any number of samples.

    Args:
        num_classes: Number of classes C; a class may be absent from the stream.
        feature_dim: Dimension d of the features.
        device: Device of the state; the CPU is used instead of a device without float64.

    Attributes:
        counts: Number (C,) of samples of each class.
        means: Class means (C, d); the row of an absent class is zero.
        scatter: Pooled within-class scatter (d, d), the sum over samples of (z - mean)(z - mean)^T.
        traces: Sum (C,) over the samples of each class of ||z - mean||^2.

    Raises:
        ValueError: If ``num_classes`` or ``feature_dim`` is below 1.

    Source:
        Chan, Golub, LeVeque (1979), Updating formulae and a pairwise algorithm for computing sample variances.

    Example:
        >>> z = torch.tensor([[1.0, 0.0], [3.0, 0.0], [0.0, 5.0]])
        >>> stats = ClassStatistics(num_classes=2, feature_dim=2).update(z, torch.tensor([0, 0, 1]))
        >>> stats.means
        tensor([[2., 0.],
                [0., 5.]], dtype=torch.float64)
        >>> stats.traces
        tensor([2., 0.], dtype=torch.float64)
    """

    def __init__(self, num_classes: int, feature_dim: int, device: torch.device | str | None = None) -> None:
        check_count("num_classes", num_classes)
        check_count("feature_dim", feature_dim)
        place: Any = {"device": statistics_device(device or "cpu"), "dtype": torch.float64}
        self.counts = torch.zeros(num_classes, **place)
        self.means = torch.zeros(num_classes, feature_dim, **place)
        self.scatter = torch.zeros(feature_dim, feature_dim, **place)
        self.traces = torch.zeros(num_classes, **place)
        self.memo: dict[str, Any] = {}

    @classmethod
    def from_state(cls, counts: Tensor, means: Tensor, scatter: Tensor, traces: Tensor) -> "ClassStatistics":
        """Wrap the four state tensors without copying them."""
        stats = cls.__new__(cls)
        stats.counts, stats.means, stats.scatter, stats.traces = counts, means, scatter, traces
        stats.memo = {}
        return stats

    @property
    def num_classes(self) -> int:
        """Number of declared classes C."""
        return self.means.shape[0]

    @property
    def feature_dim(self) -> int:
        """Dimension d of the features."""
        return self.means.shape[1]

    @property
    def present(self) -> Tensor:
        """Boolean mask (C,) of the classes with samples; measures use these P <= C classes."""
        return self.counts > 0

    @property
    def num_samples(self) -> float:
        """Number of samples."""
        return float(self.counts.sum())

    @torch.no_grad()
    def update(self, z: Array, labels: Array) -> "ClassStatistics":
        """Add a batch in place.

        Args:
            z: Features (N, d) of any floating-point dtype, N >= 0; a tensor, array or list of rows.
            labels: Classes (N,), integers in [0, C); a tensor, array or list.

        Returns:
            Itself.

        Raises:
            TypeError: If ``z`` is not floating point or ``labels`` not integer.
            ValueError: If shapes do not fit, a label lies outside [0, C), or a feature is NaN or infinite. The
                statistics are then unchanged.
        """
        z, labels = as_features(z), as_labels(labels)
        check_features(z)
        check_labels(labels, len(z))
        if z.shape[1] != self.feature_dim:
            raise ValueError(f"z: got feature dimension {z.shape[1]}, expected feature_dim = {self.feature_dim}")
        z, labels = in_float64(z.detach(), self.means.device), labels.to(self.means.device, torch.int64)
        check_values(z, labels, self.num_classes)
        if len(z) == 0:
            return self
        self._before_update()
        with torch.autocast(z.device.type, enabled=False):
            classes, member = labels.unique(return_inverse=True)
            counts = z.new_zeros(len(classes)).index_add_(0, member, z.new_ones(len(z)))
            means = z.new_zeros(len(classes), z.shape[1]).index_add_(0, member, z) / counts[:, None]
            residuals = z - means[member]
            self.scatter.addmm_(residuals.T, residuals)
            self.traces.index_add_(0, labels, residuals.square().sum(1))
            self._shift_means(classes, counts, means)
        return self

    def _before_update(self) -> None:
        self.memo.clear()
        state = (self.counts, self.means, self.scatter, self.traces)
        self.counts, self.means, self.scatter, self.traces = (outside_inference(t) for t in state)

    def _shift_means(self, classes: Tensor, counts: Tensor, means: Tensor) -> None:
        """Merge ``counts`` samples with the given ``means`` into ``classes``, by Chan's term for differing means."""
        total = self.counts[classes] + counts
        share = counts / total
        delta = means - self.means[classes]
        weight = self.counts[classes] * share
        weighted = delta * weight[:, None]
        self.scatter.addmm_(weighted.T, delta)
        self.traces.index_add_(0, classes, (weighted * delta).sum(1))
        self.means.index_add_(0, classes, delta * share[:, None])
        self.counts.index_add_(0, classes, counts)

    def merge(self, other: "ClassStatistics") -> "ClassStatistics":
        """Add the statistics of another stream in place.

        Args:
            other: Statistics of the same shape; not modified.

        Returns:
            Itself.

        Raises:
            ValueError: If the number of classes or the feature dimension differs.
        """
        if self.means.shape != other.means.shape:
            raise ValueError(
                f"other: got statistics of (num_classes, feature_dim) = {tuple(other.means.shape)}, "
                f"expected {tuple(self.means.shape)}"
            )
        self._before_update()
        classes = torch.nonzero(other.present).squeeze(1).to(self.means.device)
        self.scatter += other.scatter.to(self.scatter)
        self.traces += other.traces.to(self.traces)
        self._shift_means(classes, other.counts.to(self.counts)[classes], other.means.to(self.means)[classes])
        return self

    @torch.no_grad()
    def of_all(self, add: Callable[[Tensor], Tensor]) -> "ClassStatistics":
        """Return the statistics of the streams of several processes; all must call this.

        Sums take the memory of one state for any number of processes; `merge` would need the states of all.

        Args:
            add: Function that returns the sum of a tensor over the processes.

        Example:
            >>> stats = ClassStatistics(2, 1).update([[1.0], [3.0]], [0, 1])
            >>> stats.of_all(lambda tensor: 2 * tensor).counts.tolist()  # two processes with the same stream
            [2.0, 2.0]
        """
        counts = add(self.counts)
        means = add(self.counts[:, None] * self.means) / counts.clamp(min=1)[:, None]
        delta = self.means - means
        weighted = self.counts[:, None] * delta
        scatter = add(torch.addmm(self.scatter, weighted.T, delta))
        traces = add(self.traces + weighted.mul_(delta).sum(1))
        return ClassStatistics.from_state(counts, means, scatter, traces)

    def to(self, device: torch.device | str) -> "ClassStatistics":
        """Return the statistics on another device; the CPU is used instead of a device without float64.

        If they are already on that device, return self, with its cached spectra.
        """
        device = statistics_device(device)
        if self.means.device == device:
            return self
        state = (t.to(device) for t in (self.counts, self.means, self.scatter, self.traces))
        return ClassStatistics.from_state(*state)

    def remember(self, name: str, compute: Callable[[], T]) -> T:
        """Cache a derived quantity until the statistics change; many measures share a spectrum."""
        if name not in self.memo:
            self.memo[name] = compute()
        result: T = self.memo[name]
        return result

    @property
    def class_means(self) -> Tensor:
        """Means (P, d) of the present classes, in the order of their labels."""
        return self.means[self.present]

    @property
    def centered_class_means(self) -> Tensor:
        """Class means (P, d) minus the mean of class means (not the sample mean, from which it may differ)."""
        means = self.class_means
        return means - means.mean(0, keepdim=True)

    @property
    def within_covariance(self) -> Tensor:
        """Within-class covariance Sigma_W (d, d), with samples weighted equally."""
        return self.scatter / self.counts.sum()

    @property
    def within_trace(self) -> Tensor:
        """Trace of Sigma_W; set to 0 at rounding level (see ``zero_level``)."""
        return self._or_zero(self.traces.sum() / self.counts.sum())

    @property
    def between_trace(self) -> Tensor:
        """Trace of Sigma_B, with classes weighted equally; set to 0 at rounding level (see ``zero_level``)."""
        means = self.centered_class_means
        return self._or_zero(means.square().sum() / len(means))

    @property
    def zero_level(self) -> Tensor:
        """Rounding level of a centered trace: (64 eps)^2 times the mean squared norm."""
        squared_norm = (self.traces.sum() + self.counts @ self.means.square().sum(1)) / self.counts.sum()
        return (64 * torch.finfo(self.means.dtype).eps) ** 2 * squared_norm

    def _or_zero(self, trace: Tensor) -> Tensor:
        return torch.where(trace <= self.zero_level, torch.zeros_like(trace), trace)

    def __repr__(self) -> str:
        """Show sizes instead of tensors."""
        return (
            f"ClassStatistics(num_classes={self.num_classes}, feature_dim={self.feature_dim}, "
            f"samples={self.num_samples:.0f}, classes present={int(self.present.sum())})"
        )
