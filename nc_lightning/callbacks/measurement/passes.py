"""One measurement of all sets, which leaves the module and the random generators unchanged."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import reduce
from typing import NamedTuple

import torch
from lightning.pytorch import LightningModule, Trainer
from torch import Tensor

from nc_lightning.batch import UNLABELED
from nc_lightning.callbacks.fault_tolerance.random_states import random_states, set_random_states
from nc_lightning.callbacks.measurement.feature_sample import FeatureSample
from nc_lightning.callbacks.measurement.features import Measured
from nc_lightning.callbacks.measurement.loaders import Source, features
from nc_lightning.callbacks.online_linear_probe import OnlineLinearProbe
from nc_lightning.callbacks.sources import callbacks_of
from nc_lightning.checks import check_features
from nc_lightning.distributed.collectives import all_gather_objects
from nc_lightning.geometry import CenterDistances, ClassStatistics, nc3, nc4_mismatches, statistics_measures
from nc_lightning.geometry.centers import ncc_accuracy, within_class_variation
from nc_lightning.geometry.measures import MEASURES

KEPT_BYTES = 128 * 2**20
"""Largest size of a set's features that are kept on their device for the second pass over them.

The 50,000 images of CIFAR in 512 dimensions take 98 MiB, less than the activations of a training step.
"""

Batches = Iterable[tuple[Tensor, Tensor, Tensor]]
"""Features (N, d), labels (N,) and inputs (N, ...) of each batch."""


class Measurement(NamedTuple):
    """Values by set and key, class statistics by set with labels, and features of the training set if requested."""

    results: dict[str, dict[str, float]]
    statistics: dict[str, ClassStatistics]
    sample: FeatureSample | None


def measure_sets(
    sets: Mapping[str, Sequence[Source]],
    trainer: Trainer,
    pl_module: LightningModule,
    num_classes: int,
    sample_size: int = 0,
    measured: Measured | None = None,
) -> Measurement:
    """Measure sets by name; the first provides the class centers for all, and sets without a batch are skipped.

    The result is the same on all processes except for the sample: ``sample_size`` features of the set ``train``.

    Raises:
        ValueError: If labels or features are invalid; the message names the batch.
    """
    results: dict[str, dict[str, float]] = {}
    statistics: dict[str, ClassStatistics] = {}
    sample = FeatureSample(num_classes, sample_size) if sample_size > 0 else None
    centers: ClassStatistics | None = None
    measured = measured or Measured()
    with undisturbed(pl_module) as states, torch.no_grad():
        for name, sources in sets.items():
            kept = Kept()
            batches = kept.passing(features(trainer, pl_module, sources, measured))
            own = _statistics(name, batches, num_classes, sample if name == "train" else None)
            stats = _of_all_processes(own, pl_module.device)
            if stats is None:
                continue
            if stats.num_classes == 1:
                values = statistics_measures(stats)
                results[name] = {key: float(value) for key, value in values.items() if MEASURES[key].label_free}
                continue
            statistics[name] = stats
            centers = centers or stats
            to_own = CenterDistances(stats)
            to_given = to_own if centers is stats else CenterDistances(centers)
            looks = [to_own] if to_given is to_own else [to_own, to_given]
            classifier = measured.linear(pl_module, num_classes, stats.feature_dim) or _of_probe(trainer, stats)
            disagree = stats.counts.new_zeros(1)
            # A second pass must see the inputs of the first, even if reading them draws random numbers. All processes
            # make it, or none: the forward pass of a sharded module is a collective.
            set_random_states(states, pl_module.device)
            again = not all(all_gather_objects(kept.complete))
            for z, labels, _ in features(trainer, pl_module, sources, measured) if again else kept.batches:
                for look in looks:
                    look.update(z, labels)
                if classifier is not None:
                    disagree += nc4_mismatches(z, classifier.weight, classifier.bias, to_given).sum()
            _add_up(disagree, *(sums for look in looks for sums in (look.counts, look.distances, look.correct)))
            values = statistics_measures(stats)
            values |= {"within_class_variation": within_class_variation(to_own), "ncc_accuracy": ncc_accuracy(to_given)}
            if classifier is not None:
                values |= {"nc3": nc3(stats, classifier.weight), "nc4": disagree[0] / stats.num_samples}
            results[name] = {key: float(value) for key, value in values.items()}
            set_random_states(states, pl_module.device)
    return Measurement(results, statistics, sample if sample is not None and len(sample) > 0 else None)


class Kept:
    """Features and labels of a pass, with None as inputs; no batch at all if they exceed `KEPT_BYTES`."""

    def __init__(self) -> None:
        self.batches: list[tuple[Tensor, Tensor, None]] = []
        self.complete = True
        self._room = KEPT_BYTES

    def passing(self, batches: Batches) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
        """Yield the batches, and keep their features and labels."""
        for z, labels, x in batches:
            self._room -= z.nbytes + labels.nbytes
            if self._room >= 0:
                # Copies: a view would keep the whole tensor behind it alive.
                self.batches.append((z.clone(), labels.clone(), None))
            elif self.complete:
                self.complete = False
                self.batches.clear()
            yield z, labels, x


def check_batches(
    name: str, batches: Batches, pl_module: LightningModule, num_classes: int, measured: Measured
) -> int | None:
    """Raise if batches of a set cannot be measured, with the message that a measurement would give.

    Returns:
        d; None for a set without a batch, or without labels.

    Raises:
        ValueError: If labels or features are invalid, or a classifier does not fit them.
    """
    # Non-finite values are not checked here: `NonFiniteGuard` reports them during training.
    stats = _statistics(name, ((z.nan_to_num(), labels, x) for z, labels, x in batches), num_classes, None)
    if stats is None or stats.num_classes == 1:
        return None
    measured.linear(pl_module, num_classes, stats.feature_dim)
    return stats.feature_dim


def _statistics(name: str, batches: Batches, num_classes: int, sample: FeatureSample | None) -> ClassStatistics | None:
    stats: ClassStatistics | None = None
    index = 0
    try:
        for z, labels, x in batches:
            if stats is None:
                unlabeled = bool((labels == UNLABELED).all())
                check_features(z)
                stats = ClassStatistics(1 if unlabeled else num_classes, z.shape[-1], z.device)
            stats.update(z, labels - UNLABELED if stats.num_classes == 1 else labels)
            if sample is not None and stats.num_classes > 1:
                sample.update(z, labels, x)
            index += 1
    except (TypeError, ValueError) as error:
        raise ValueError(f"geometry of the {name} set, batch {index}: {error}") from error
    return stats


def _of_all_processes(stats: ClassStatistics | None, device: torch.device) -> ClassStatistics | None:
    shares = all_gather_objects(None if stats is None else stats.to("cpu"))
    if len(shares) == 1:
        return stats
    present = [share for share in shares if share is not None]
    return reduce(ClassStatistics.merge, present).to(device) if present else None


def _add_up(*shares: Tensor) -> None:
    """Add the counts of the other processes, in place."""
    for share, *all_shares in zip(shares, *all_gather_objects([share.cpu() for share in shares]), strict=True):
        share.copy_(torch.stack(all_shares).sum(0))


def _of_probe(trainer: Trainer, stats: ClassStatistics) -> torch.nn.Linear | None:
    """Return the classifier of the online probe, if there is one and it fits these features."""
    probes = (callback for callback in callbacks_of(trainer) if isinstance(callback, OnlineLinearProbe))
    classifier = next((probe.classifier for probe in probes), None)
    return classifier if classifier is not None and classifier.weight.shape == stats.means.shape else None


@contextmanager
def undisturbed(module: LightningModule) -> Iterator[dict[str, object]]:
    """Put a module into eval mode; afterwards restore every mode and every random generator."""
    modes = [(submodule, submodule.training) for submodule in module.modules()]
    states = random_states(module.device)
    module.eval()
    try:
        yield states
    finally:
        set_random_states(states, module.device)
        for submodule, training in modes:
            submodule.training = training
