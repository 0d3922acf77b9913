"""Base of the geometry metrics: class statistics, merged over batches and processes."""

import hashlib
import math
import warnings
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NoReturn

import torch
from torch import Tensor, nn
from torchmetrics import Metric
from typing_extensions import TypedDict

from nc_lightning.checks import Array, as_features, as_labels, check_count
from nc_lightning.distributed.collectives import add_over_processes, rank_and_world_size
from nc_lightning.geometry import ClassStatistics, unit_sphere
from nc_lightning.geometry.ideals import Ideal, ideal
from nc_lightning.geometry.measures import STATISTICS_MEASURES
from nc_lightning.geometry.placement import in_float64, outside_inference, statistics_device
from nc_lightning.geometry.survey import caveats
from nc_lightning.options import Unpack

LARGE_STATE = 2**28
"""Size of the state in bytes above which the constructor warns."""


class MetricOptions(TypedDict, total=False):
    """Arguments of `torchmetrics.Metric`."""

    compute_on_cpu: bool
    compute_with_cache: bool
    dist_sync_fn: Callable[..., Any] | None
    dist_sync_on_step: bool
    distributed_available_fn: Callable[[], bool] | None
    process_group: Any
    sync_on_compute: bool


class StatisticsOptions(MetricOptions, total=False):
    """Arguments of `ClassStatisticsMetric`, except the sizes."""

    dataset_size: int | None


class Float64Metric(Metric):
    """Metric with a float64 state, which moves with the module but stays on the CPU for devices without float64.

    In that case ``device`` is the CPU, and results of `compute` stay on it.
    """

    keys: tuple[str, ...] = ()
    """Keys of the measures that `compute` returns."""

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

    def plot(self, val: Any = None, ax: Any = None) -> Any:
        """Plot a value of each measure next to its ideal, or values over steps with the ideal as a dashed line.

        A spectrum is plotted over its index, one line for each step.

        Args:
            val: Value from `compute` or `forward`, or a list of values over steps; None to compute it now.
            ax: Matplotlib axes to draw on; None for a new figure.

        Returns:
            Figure and axes, as for every torchmetric; the figure is None if axes were given.
        """
        given = self.compute() if val is None else val
        return self._plot_steps(list(given) if isinstance(given, list | tuple) else [given], ax)

    def _plot_steps(self, steps: list[Any], ax: Any) -> Any:
        from nc_lightning.plots import values as charts  # noqa: PLC0415 - matplotlib takes a second to import

        named = [step if isinstance(step, dict) else {self._name: step} for step in steps]
        found = {key: [float(step[key]) for step in named] for key in named[0]}
        figure, axes = charts.new_axes(list(found), len(steps)) if ax is None else (None, ax)
        if len(steps) > 1:
            charts.draw_steps(axes, found, self._ideals())
        else:
            charts.draw_values(axes, {key: values[0] for key, values in found.items()}, self._ideals())
        return figure, axes

    @property
    def _name(self) -> str:
        """Name of a value that is not in a dict."""
        return self.keys[0] if self.keys else type(self).__name__.lower()

    def _ideals(self) -> dict[str, Ideal]:
        """Return the ideals of the measures that have one."""
        return {}


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

    on_unit_sphere = False
    sums: tuple[str, ...] = ()
    """Names of sums that a subclass keeps next to the statistics, by default of shape (C,)."""

    state: Tensor

    def __init__(
        self, num_classes: int, feature_dim: int, dataset_size: int | None = None, **kwargs: Unpack[MetricOptions]
    ) -> None:
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
            **self._sum_shapes(),
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

    def _sum_shapes(self) -> dict[str, tuple[int, ...]]:
        """Return the shapes of ``sums``."""
        return dict.fromkeys(self.sums, (self.num_classes,))

    def _parts(self, state: Tensor) -> dict[str, Tensor]:
        """Return views of the parts of a state, by name."""
        sizes = [math.prod(shape) for shape in self._shapes.values()]
        return {k: v.view(self._shapes[k]) for k, v in zip(self._shapes, state.split(sizes), strict=True)}

    def update(self, z: Array, labels: Array) -> None:
        """Add a batch of features (N, d) and labels (N,): tensors, arrays or lists."""
        z, labels = as_features(z), as_labels(labels)
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

    def sync(self, dist_sync_fn: Callable[..., Any] | None = None, *args: Any, **kwargs: Any) -> None:
        """Merge the states of all processes, as `torchmetrics.Metric.sync` does, but in the memory of one state."""
        super().sync(dist_sync_fn or self._of_all_processes, *args, **kwargs)

    def _of_all_processes(self, state: Tensor, group: Any = None) -> list[Tensor]:
        """Return the state of all samples as the only one, where torchmetrics would gather one of each process."""
        merged = state.clone()
        parts, own = self._parts(merged), self._parts(state)
        add = partial(add_over_processes, group=group)
        stats = statistics_of(own).of_all(add)
        for name in ("counts", "means", "scatter", "traces"):
            parts[name].copy_(getattr(stats, name))
        for name in (*self.sums, "offered"):
            parts[name].copy_(add(own[name]))
        return [merged]

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

    def items(self) -> NoReturn:
        """Refuse ``self.log_dict(metric)``: a metric is not a dict of values.

        Raises:
            TypeError: Always.
        """
        name = type(self).__name__
        raise TypeError(
            f"log_dict: got {name} itself, expected its values: in validation_step, {name}.update(z, labels), and in "
            "on_validation_epoch_end, self.log_dict(metric.compute()) and metric.reset()"
        )

    def _measure(self, key: str, stats: ClassStatistics) -> Tensor:
        return STATISTICS_MEASURES[key](stats) if stats.present.any() else stats.means.new_full((), torch.nan)

    def _ideals(self) -> dict[str, Ideal]:
        goals = {key: ideal(key, self.num_classes, self.feature_dim) for key in self.keys}
        return {key: goal for key, goal in goals.items() if goal is not None}


def statistics_of(parts: dict[str, Tensor]) -> ClassStatistics:
    """Wrap the parts of a state as class statistics without copying them."""
    return ClassStatistics.from_state(parts["counts"], parts["means"], parts["scatter"], parts["traces"])
