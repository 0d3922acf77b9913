"""The standard protocols on frozen features: k-NN, linear probe, class means, few shots and retrieval, in one call."""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from nc_lightning.checks import Array, check_count, check_labels
from nc_lightning.evaluation.class_means import few_shot_accuracy, nearest_class_mean
from nc_lightning.evaluation.knn import TEMPERATURE, knn_predict
from nc_lightning.evaluation.linear import linear_probe
from nc_lightning.evaluation.ranking import retrieval
from nc_lightning.evaluation.samples import as_samples, check_dimensions, check_samples


class Evaluation(NamedTuple):
    """Result of `evaluate_features`.

    Attributes:
        values: Measures by name, see `evaluate_features`.
        notes: Lines for the reader: what was left out and why.
    """

    values: dict[str, float]
    notes: list[str]


def evaluate_features(
    train: tuple[Array, Array],
    test: tuple[Array, Array],
    num_classes: int,
    ks: Sequence[int] = (20, 200),
    shots: Sequence[int] = (1, 5, 10),
    temperature: float = TEMPERATURE,
    seed: int = 0,
) -> Evaluation:
    """Evaluate frozen features by the standard protocols; accuracies of the test set, in [0, 1].

    - ``knn_<k>``: k nearest neighbors, cosine, votes weighted by e^{s / tau}; `knn_predict`.
    - ``linear`` and ``linear_weight_decay``: `linear_probe`, and the weight decay that it chose.
    - ``ncm``: `nearest_class_mean`.
    - ``few_shot_<n>`` and ``few_shot_<n>_interval``: mean and half its 95 % interval; `few_shot_accuracy`.
    - ``precision_at_1``, ``r_precision`` and ``map_at_r``: `retrieval` among the test samples.

    Unlabeled samples (negative labels) are left out. Test samples of classes that are not in the training set count as
    wrong. A k larger than the training set, and more shots than the smallest class has samples, are left out. Each of
    these is a note.

    Args:
        train: Features (N, d) and labels (N,) that the classifiers may use.
        test: Features (M, d) and labels (M,) to classify, on the same device.
        num_classes: Number of classes C.
        ks: Numbers of neighbors.
        shots: Numbers of samples per class.
        temperature: tau > 0 of the votes.
        seed: Seed of the few-shot draws and of the held-out part of the linear probe.

    Returns:
        Values by name, in the order of the list, and notes.

    Raises:
        TypeError: If features are not floating point, or labels not integers.
        ValueError: If shapes do not fit, a feature is not finite, a label is at least C, a set has no labeled sample,
            or the training set has a single class.

    Example:
        >>> z, labels = torch.randn(60, 3), torch.arange(3).repeat(20)
        >>> z[range(60), labels] += 20
        >>> values, notes = evaluate_features((z[:30], labels[:30]), (z[30:], labels[30:]), num_classes=3, ks=(5, 50))
        >>> values["knn_5"], values["linear"], values["few_shot_10"], values["map_at_r"]
        (1.0, 1.0, 1.0, 1.0)
        >>> notes
        ['knn_50: left out, the training set has only 30 samples']
    """
    for name, counts in (("ks", ks), ("shots", shots)):
        for count in counts:
            check_count(name, count)
    notes: list[str] = []
    bank, bank_labels = _labeled(*train, num_classes, "train", notes)
    queries, labels = _labeled(*test, num_classes, "test", notes)
    check_dimensions(queries, bank)
    present = bank_labels.unique()
    if len(present) == 1:
        raise ValueError(f"train: got the single class {int(present)}, expected samples of at least two classes")
    absent = sorted(set(labels.unique().tolist()) - set(present.tolist()))
    if absent:
        wrong = int(torch.isin(labels, torch.tensor(absent, device=labels.device)).sum())
        notes.append(
            f"test: {wrong} samples count as wrong, as the training set has none of {_classes(absent)}; retrieval does "
            "not need it"
        )
    values: dict[str, float] = {}

    def accuracy(predictions: Tensor) -> float:
        return int((predictions == labels).sum()) / len(labels)

    possible = [k for k in ks if k <= len(bank)]
    notes += [f"knn_{k}: left out, the training set has only {len(bank)} samples" for k in ks if k > len(bank)]
    if possible:
        predictions = knn_predict(queries, bank, bank_labels, num_classes, possible, temperature)
        values |= {f"knn_{k}": accuracy(found) for k, found in zip(possible, predictions, strict=True)}
    probe = linear_probe(queries, bank, bank_labels, num_classes, seed)
    notes += probe.notes
    values |= {"linear": accuracy(probe.predictions), "linear_weight_decay": probe.weight_decay}
    values["ncm"] = accuracy(nearest_class_mean(queries, bank, bank_labels, num_classes))
    least = int(bank_labels.bincount()[present].min())
    for n in shots:
        if n > least:
            notes.append(f"few_shot_{n}: left out, the smallest training class has only {least} samples")
            continue
        few = few_shot_accuracy(queries, labels, bank, bank_labels, num_classes, n, seed=seed)
        values |= {f"few_shot_{n}": few.accuracy, f"few_shot_{n}_interval": few.interval}
    found = retrieval(queries, labels)
    if found.left_out < len(queries):
        values |= {key: value for key, value in found._asdict().items() if key != "left_out"}
    if found.left_out:
        notes.append(f"retrieval: {found.left_out} test samples left out, which have no other sample of their class")
    return Evaluation(values, notes)


def _labeled(z: Array, labels: Array, num_classes: int, name: str, notes: list[str]) -> tuple[Tensor, Tensor]:
    """Return the labeled samples, with labels on the device of the features, and note the number of the others."""
    z, labels = as_samples(z, labels, name)
    check_samples(z, None, num_classes, name)
    check_labels(labels, len(z), name=f"{name}_labels")
    labels = labels.to(z.device, torch.int64)
    known = labels >= 0
    if not known.any():
        raise ValueError(f"{name}: got no labeled sample, expected at least one")
    if not known.all():
        notes.append(f"{name}: {int((~known).sum())} unlabeled samples left out")
        z, labels = z[known], labels[known]
    check_labels(labels, len(z), num_classes, f"{name}_labels")
    return z, labels


def _classes(labels: list[int]) -> str:
    """Return words for classes, at most five of them by number."""
    shown = ", ".join(map(str, labels[:5])) + (" and others" if len(labels) > 5 else "")
    return f"class {shown}" if len(labels) == 1 else f"{len(labels)} classes ({shown})"
