"""One measurement of all sets, which leaves the module and the random generators unchanged."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import NamedTuple

import torch
from lightning.pytorch import LightningModule, Trainer
from torch import Tensor

from nc_lightning.batch import UNLABELED
from nc_lightning.callbacks.fault_tolerance.random_states import random_states, set_random_states
from nc_lightning.callbacks.measurement.feature_sample import FeatureSample
from nc_lightning.callbacks.measurement.features import Measured
from nc_lightning.callbacks.measurement.layers import OUTPUT
from nc_lightning.callbacks.measurement.loaders import Batch, Source, features
from nc_lightning.callbacks.measurement.readers import FeatureReader
from nc_lightning.callbacks.measurement.second_pass import SecondPass
from nc_lightning.callbacks.online_linear_probe import OnlineLinearProbe
from nc_lightning.callbacks.sources import callbacks_of
from nc_lightning.checks import check_features
from nc_lightning.distributed.collectives import add_over_processes, all_gather_objects, rank_and_world_size
from nc_lightning.geometry import ClassStatistics, statistics_measures
from nc_lightning.geometry.measures import MEASURES

KEPT_BYTES = 128 * 2**20
"""Largest size of a layer's features in a set that are kept on their device for the second pass over them.

The 50,000 images of CIFAR in 512 dimensions take 98 MiB, less than the activations of a training step.
"""
WIDEST = 4096
"""Largest dimension d of a named layer: its statistics take d^2 float64 numbers for each set, and d^3 operations."""


class Measurement(NamedTuple):
    """Result of a measurement.

    Attributes:
        results: Values by layer in the order of execution, ``z`` being the last; by set, and by key.
        feature_dims: Dimension d of each of these layers.
        statistics: Class statistics of ``z``, by set with labels.
        sample: Features of the training set, if requested.
        read: Values of the readers, by their logged keys.
    """

    results: dict[str, dict[str, dict[str, float]]]
    feature_dims: dict[str, int]
    statistics: dict[str, ClassStatistics]
    sample: FeatureSample | None
    read: dict[str, float]


def measure_sets(
    sets: Mapping[str, Sequence[Source]],
    trainer: Trainer,
    pl_module: LightningModule,
    num_classes: int,
    sample_size: int = 0,
    measured: Measured | None = None,
    readers: Sequence[FeatureReader] = (),
) -> Measurement:
    """Measure sets by name; the first provides the class centers for all, and sets without a batch are skipped.

    The result is the same on all processes except for the sample: ``sample_size`` features of the set ``train``.

    Raises:
        ValueError: If labels or features are invalid; the message names the batch.
    """
    measured = measured or Measured()
    layers = (OUTPUT, *measured.layers)
    done = Measurement({}, {}, {}, FeatureSample(num_classes, sample_size) if sample_size > 0 else None, {})
    results: dict[str, dict[str, dict[str, float]]] = {layer: {} for layer in layers}
    order: list[str] = []
    centers: dict[str, ClassStatistics] = {}
    gram = measured.optimal_gram(pl_module)
    caught = with_layers(measured, [layer for reader in readers for layer in reader.layers])
    with undisturbed(pl_module) as states, torch.no_grad():
        for name, sources in sets.items():
            kept = Kept(layers)
            batches = _read(name, features(trainer, pl_module, sources, caught), readers)
            sample = done.sample if name == "train" else None
            own = _statistics(name, kept.passing(batches), num_classes, layers, sample)
            found = {layer: _of_all_processes(own.get(layer), pl_module.device) for layer in layers}
            stats = {layer: each for layer, each in found.items() if each is not None}
            if not stats:
                continue
            # All processes make a second pass, or none: the forward pass of a sharded module is a collective.
            shares = all_gather_objects((kept.complete, kept.order))
            again = not all(complete for complete, _ in shares)
            order = order or next(share for _, share in shares if share)
            done.feature_dims.update((layer, each.feature_dim) for layer, each in stats.items())
            if stats[OUTPUT].num_classes == 1:
                for layer, each in stats.items():
                    values = statistics_measures(each)
                    results[layer][name] = {key: float(v) for key, v in values.items() if MEASURES[key].label_free}
                continue
            done.statistics[name] = stats[OUTPUT]
            centers = centers or stats
            looks = {layer: SecondPass(stats[layer], centers[layer]) for layer in measured.layers}
            classifier = measured.linear(pl_module, num_classes, stats[OUTPUT].feature_dim)
            looks[OUTPUT] = SecondPass(
                stats[OUTPUT], centers[OUTPUT], classifier or _of_probe(trainer, stats[OUTPUT]), gram
            )
            # It must see the inputs of the first pass, even if reading them draws random numbers.
            set_random_states(states, pl_module.device)
            for by_layer, labels, _ in features(trainer, pl_module, sources, measured) if again else kept.batches:
                for layer, look in looks.items():
                    look.update(by_layer[layer], labels)
            _add_up(*(total for layer in layers for total in looks[layer].sums()))
            for layer, look in looks.items():
                results[layer][name] = {key: float(value) for key, value in look.values().items()}
            set_random_states(states, pl_module.device)
        for reader in readers:
            done.read.update(reader.compute())
    done.results.update((layer, results[layer]) for layer in order if layer in results)
    return done if done.sample is None or len(done.sample) > 0 else done._replace(sample=None)


class Kept:
    """Features of a pass by layer, and labels, with None as inputs; no batch at all if a layer exceeds `KEPT_BYTES`.

    Attributes:
        order: Layers in the order of execution, once there was a batch.
    """

    def __init__(self, layers: Sequence[str]) -> None:
        self.batches: list[tuple[dict[str, Tensor], Tensor, None]] = []
        self.complete = True
        self.order: list[str] = []
        self._room = dict.fromkeys(layers, KEPT_BYTES)

    def passing(self, batches: Iterable[Batch]) -> Iterator[Batch]:
        """Yield the batches, and keep their features and labels."""
        for batch in batches:
            self.order = self.order or list(batch.features)
            for layer in self._room:
                self._room[layer] -= batch.features[layer].nbytes + batch.labels.nbytes
            if min(self._room.values()) >= 0:
                features = {layer: batch.features[layer] for layer in self._room}
                self.batches.append((features, batch.labels.clone(), None))
            elif self.complete:
                self.complete = False
                self.batches.clear()
            yield batch


def check_batches(
    name: str, batches: Iterable[Batch], pl_module: LightningModule, num_classes: int, measured: Measured
) -> int | None:
    """Raise if batches of a set cannot be measured, with the message that a measurement would give.

    Returns:
        d; None for a set without a batch, or without labels.

    Raises:
        ValueError: If labels or features are invalid, or a classifier does not fit them.
    """
    # Non-finite values are not checked here: `NonFiniteGuard` reports them during training.
    finite = (
        batch._replace(features={layer: z.nan_to_num() for layer, z in batch.features.items()}) for batch in batches
    )
    stats = _statistics(name, finite, num_classes, (OUTPUT, *measured.layers), None).get(OUTPUT)
    if stats is None or stats.num_classes == 1:
        return None
    measured.linear(pl_module, num_classes, stats.feature_dim)
    return stats.feature_dim


def with_layers(measured: Measured, layers: Sequence[str]) -> Measured:
    """Return sources of features with more layers."""
    named = [layer for layer in (*measured.layers, *layers) if layer != OUTPUT]
    return measured._replace(layers=tuple(dict.fromkeys(named)))


def _read(name: str, batches: Iterable[Batch], readers: Sequence[FeatureReader]) -> Iterator[Batch]:
    """Yield the batches, and show them to the readers."""
    for batch in batches:
        for reader in readers:
            reader.update(name, batch.features, batch.labels)
        yield batch


def _statistics(
    name: str, batches: Iterable[Batch], num_classes: int, layers: Sequence[str], sample: FeatureSample | None
) -> dict[str, ClassStatistics]:
    """Return the class statistics of each layer, with a single class for a set without labels."""
    stats: dict[str, ClassStatistics] = {}
    index, where = 0, ""
    try:
        for by_layer, labels, x in batches:
            if not stats:
                num_classes = 1 if bool((labels == UNLABELED).all()) else num_classes
            for layer in layers:
                z, where = by_layer[layer], "" if layer == OUTPUT else f", layer {layer}"
                if layer not in stats:
                    check_features(z)
                    if layer != OUTPUT and z.shape[1] > WIDEST:
                        raise ValueError(f"got {z.shape[1]} dimensions, expected at most {WIDEST}")
                    stats[layer] = ClassStatistics(num_classes, z.shape[-1], z.device)
                stats[layer].update(z, labels - UNLABELED if num_classes == 1 else labels)
            if sample is not None and num_classes > 1:
                sample.update(by_layer[OUTPUT], labels, x)
            index, where = index + 1, ""
    except (TypeError, ValueError) as error:
        raise ValueError(f"geometry of the {name} set, batch {index}{where}: {error}") from error
    return stats


def _of_all_processes(stats: ClassStatistics | None, device: torch.device) -> ClassStatistics | None:
    shape = None if stats is None else (stats.num_classes, stats.feature_dim)
    shapes = {each for each in all_gather_objects(shape) if each is not None}
    if rank_and_world_size()[1] == 1 or not shapes:
        return stats
    if len(shapes) > 1:
        got = " and ".join(map(str, sorted(shapes)))
        raise ValueError(f"z: got statistics of (num_classes, feature_dim) = {got} on the processes, expected one")
    num_classes, feature_dim = shapes.pop()
    own = ClassStatistics(num_classes, feature_dim) if stats is None else stats
    return own.to(device).of_all(add_over_processes)


def _add_up(*shares: Tensor) -> None:
    """Add the counts of the other processes, in place."""
    totals = add_over_processes(torch.cat(shares))
    for share, total in zip(shares, totals.split([len(share) for share in shares]), strict=True):
        share.copy_(total)


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
