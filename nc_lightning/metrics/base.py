"""Base of the geometry metrics: class statistics, merged over batches and processes."""

import hashlib
import math
import warnings
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torchmetrics import Metric

from nc_lightning.checks import check_count
from nc_lightning.distributed.collectives import rank_and_world_size
from nc_lightning.geometry import ClassStatistics, unit_sphere
from nc_lightning.geometry.ideals import ideal
from nc_lightning.geometry.measures import STATISTICS_MEASURES
from nc_lightning.geometry.placement import in_float64, outside_inference, statistics_device
from nc_lightning.geometry.survey import caveats

LARGE_STATE = 2**28
"""Size of the state in bytes above which the constructor warns."""


class Float64Metric(Metric):
    """Metric with a float64 state, which moves with the module but stays on the CPU for devices without float64.

    In that case ``device`` is the CPU, and results of `compute` stay on it.
    """

    def _apply(self, fn: Callable[..., Any], exclude_state: Sequence[str] = ()) -> nn.Module:
        wanted = fn(torch.zeros(1, device=self.device)).device
        place = statistics_device(wanted)
        if place == wanted:
            return super()._apply(fn, exclude_state)
        kept = self._computed, self._forward_cache
        self._computed = self._forward_cache = None
        super()._apply(fn, tuple(self._defaults))
        self._computed, self._forward_cache = kept
        self._device = place
        return self


class ClassStatisticsMetric(Float64Metric):
    """Base of the geometry metrics: updates a `ClassStatistics`; subclasses name the measures to report.

    The state has C d + d^2 float64 numbers and a few per class, and no features. It is a single tensor, so processes
    synchronize with one collective; their statistics are merged by Chan's update, and every process returns the value
    of a single process with all data. The state is not saved in checkpoints and not affected by casts of the module.

    In a `torchmetrics.MetricCollection`, metrics with equal settings share one state and one update; a fingerprint of
    the settings in the state keeps the others separate.

    Args:
        num_classes: Number of classes C.
        feature_dim: Dimension d of the features.
        dataset_size: Number of samples of a data set sharded by `DistributedSampler`, which duplicates samples to make
            all shards equal; the duplicates are then counted once. None if there are none.
        **kwargs: Arguments of `torchmetrics.Metric`.

    Raises:
        ValueError: If a size is below 1; and in `update` if shapes do not fit, a label is out of range, or a feature
            is not finite.
    """

    is_differentiable = False
    # Statistics of processes are merged in `compute`; no elementwise reduction can do that.
    full_state_update = True

    keys: tuple[str, ...] = ()
    on_unit_sphere = False
    sums: tuple[str, ...] = ()
    """Names of sums (C,) that a subclass keeps next to the statistics."""

    state: Tensor

    def __init__(self, num_classes: int, feature_dim: int, dataset_size: int | None = None, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        check_count("num_classes", num_classes)
        check_count("feature_dim", feature_dim)
        if dataset_size is not None:
            check_count("dataset_size", dataset_size)
        self.num_classes = num_classes
        self.feature_dim = feature_dim
        self.dataset_size = dataset_size
        self._warned = False
        self._shapes: dict[str, tuple[int, ...]] = {
            "counts": (num_classes,),
            "means": (num_classes, feature_dim),
            "scatter": (feature_dim, feature_dim),
            "traces": (num_classes,),
            **dict.fromkeys(self.sums, (num_classes,)),
            "offered": (1,),
            "fingerprint": (16,),
        }
        size = sum(math.prod(shape) for shape in self._shapes.values())
        if 8 * size > LARGE_STATE:
            warnings.warn(
                f"{type(self).__name__}: keeps {8 * size / 2**20:.0f} MiB, C d + d^2 numbers for num_classes = "
                f"{num_classes} and feature_dim = {feature_dim}",
                stacklevel=3,
            )
        place = statistics_device(self.device)  # torch's default device
        state = torch.zeros(size, dtype=torch.float64, device=place)
        # Single bytes, because torchmetrics compares states by allclose, which could match larger numbers.
        digest = hashlib.sha256(repr(self._settings()).encode()).digest()[:16]
        state[-16:] = torch.tensor(list(digest), dtype=torch.float64, device=place)
        self.add_state("state", default=state, dist_reduce_fx=None)

    def _settings(self) -> tuple[Any, ...]:
        """Return the settings on which updates depend; metrics share a state only if these are equal."""
        return (self.num_classes, self.feature_dim, self.dataset_size, self.on_unit_sphere, self.sums)

    def _parts(self, state: Tensor) -> dict[str, Tensor]:
        """Return views of the parts of a state, by name."""
        sizes = [math.prod(shape) for shape in self._shapes.values()]
        return {k: v.view(self._shapes[k]) for k, v in zip(self._shapes, state.split(sizes), strict=True)}

    def update(self, z: Tensor, labels: Tensor) -> None:
        """Add a batch of features (N, d) and labels (N,)."""
        self.state = outside_inference(self.state)
        parts = self._parts(self.state)
        offered = len(z)
        if self.dataset_size is not None:
            fresh = self._not_repeated(self.dataset_size, int(parts["offered"]))
            z, labels = z[:fresh], labels[:fresh]
        if self.on_unit_sphere:
            z = unit_sphere(z)
        statistics_of(parts).update(z, labels)
        self._look(parts, z, labels)
        parts["offered"] += offered

    def _look(self, parts: dict[str, Tensor], z: Tensor, labels: Tensor) -> None:
        """Add a checked batch to the sums of a subclass."""

    @staticmethod
    def _not_repeated(dataset_size: int, offered: int) -> int:
        """Return the number of samples left before the padding of `DistributedSampler`, which deals round-robin."""
        rank, processes = rank_and_world_size()
        return max(0, len(range(rank, dataset_size, processes)) - offered)

    def _merged(self) -> list[dict[str, Tensor]]:
        """Return the parts of each process's state; only those of this process before synchronization."""
        return [self._parts(state) for state in self.state.view(-1, self.state.shape[-1])]

    @property
    def statistics(self) -> ClassStatistics:
        """Class statistics of all batches so far, and of all processes if synchronized."""
        first, *others = self._merged()
        merged = statistics_of({name: part.clone() for name, part in first.items()})
        for other in others:
            merged.merge(statistics_of(other))
        return merged

    def _sum(self, name: str) -> Tensor:
        return torch.stack([parts[name] for parts in self._merged()]).sum(0)

    def merge_state(self, incoming_state: "dict[str, Any] | Metric") -> None:
        """Merge the state of another metric with the same settings.

        Raises:
            ValueError: If its settings differ.
        """
        incoming = incoming_state.metric_state if isinstance(incoming_state, Metric) else incoming_state
        other: Any = incoming["state"]
        if other.shape != self.state.shape or not torch.equal(other[-16:], self.state[-16:].to(other)):
            raise ValueError("incoming_state: got a metric with other settings, expected the same settings")
        self._computed = None
        self.state = outside_inference(self.state)
        parts, more = self._parts(self.state), self._parts(in_float64(other, self.state.device))
        statistics_of(parts).merge(statistics_of(more))
        for name in (*self.sums, "offered"):
            parts[name] += more[name]

    def compute(self) -> Any:
        """Return the measure, or a flat dict of several measures."""
        stats = self.statistics.to("cpu")
        values = {key: self._measure(key, stats) for key in self.keys}
        # On the device of the state, where processes average logged values.
        values = {key: value.to(self.state.device) for key, value in values.items()}
        sound = "nc1" not in values and all(torch.isfinite(value).all() for value in values.values())
        if caveats(stats) and not sound and not self._warned:
            self._warned = True
            warnings.warn(f"{type(self).__name__}: {caveats(stats)}", stacklevel=3)
        return values if len(values) > 1 else values[self.keys[0]]

    def _measure(self, key: str, stats: ClassStatistics) -> Tensor:
        return STATISTICS_MEASURES[key](stats) if stats.present.any() else stats.means.new_full((), torch.nan)

    def plot(self, val: Any = None, ax: Any = None) -> Any:
        """Plot a value, or a list of values over epochs, with its ideal as a dashed line of the same color.

        Args:
            val: Value from `compute` or `forward`, or a list of values; None to compute it now.
            ax: Matplotlib axes to draw on; None for a new figure.

        Returns:
            Figure and axes, as for every torchmetric; the figure is None if axes were given.
        """
        drawn: tuple[Any, Any] = self._plot(val, ax)
        figure, axes = drawn
        for line, key in zip(list(axes.get_lines()), self.keys, strict=False):
            goal = ideal(key, self.num_classes, self.feature_dim)
            if goal is not None:
                axes.axhline(goal.value, linestyle="--", linewidth=1, color=line.get_color())
        return figure, axes


def statistics_of(parts: dict[str, Tensor]) -> ClassStatistics:
    """Wrap the parts of a state as class statistics without copying them."""
    return ClassStatistics.from_state(parts["counts"], parts["means"], parts["scatter"], parts["traces"])
