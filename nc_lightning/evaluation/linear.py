"""Linear probe: multinomial logistic regression on standardized, frozen features."""

import warnings
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from nc_lightning.checks import Array, as_features
from nc_lightning.evaluation.samples import as_samples, check_dimensions, check_samples

WEIGHT_DECAYS = (1.0, 1e-1, 1e-2, 1e-3, 1e-4, 1e-5)
"""Candidates of the weight decay lambda in the mean cross-entropy + lambda/2 ||W||^2, the strongest first."""

HELD_OUT = 0.2
"""Share of each class of the training features that decides the weight decay."""

MAX_ITERATIONS = 1000

SMALL = 2**24
"""Products N d C below this use one thread: several would wait for each other, for long on a busy machine."""


class LinearProbe(NamedTuple):
    """What a linear probe found.

    Attributes:
        predictions: Predicted class (M,) of each query.
        weight_decay: Chosen lambda, in the mean cross-entropy + lambda/2 ||W||^2; C = 1/(N lambda) in scikit-learn.
        notes: Lines for the reader, for example that the solver did not converge.
    """

    predictions: Tensor
    weight_decay: float
    notes: list[str]


def linear_probe(queries: Array, bank: Array, bank_labels: Array, num_classes: int, seed: int = 0) -> LinearProbe:
    """Train a linear classifier on the features of a bank and classify queries.

    Features are standardized with mean and standard deviation of the bank. The weight decay with the best accuracy on
    a held-out fifth of each class of the bank is chosen among `WEIGHT_DECAYS`, the strongest of equals; the classifier
    is then trained on the whole bank. Both by scikit-learn's ``LogisticRegression``: full-batch L-BFGS in float64,
    without penalty on the bias. Classes that are not in the bank are never predicted.

    Args:
        queries: Features (M, d).
        bank: Features (N, d).
        bank_labels: Labels (N,) in [0, C), at least two classes; leave unlabeled samples out.
        num_classes: Number of classes C.
        seed: Seed of the held-out part.

    Returns:
        Predictions, the chosen weight decay, and notes.

    Raises:
        TypeError: If features are not floating point, or labels not integers.
        ValueError: If shapes do not fit, a feature is not finite, a label lies outside [0, C), or there is one class.

    Source:
        Protocol of Kornblith, Shlens, Le (2019), Do better ImageNet models transfer better?, arXiv 1805.08974: L-BFGS
        on frozen features, weight decay chosen on held-out data, then refitted on all.

    Example:
        >>> bank, labels = torch.randn(60, 3), torch.arange(3).repeat(20)
        >>> bank[range(60), labels] += 10
        >>> probe = linear_probe(torch.eye(3) * 10, bank, labels, num_classes=3)
        >>> probe.predictions.tolist(), probe.notes
        ([0, 1, 2], [])
    """
    from threadpoolctl import threadpool_limits  # noqa: PLC0415 - heavy; scikit-learn brings it along

    queries = as_features(queries, "queries")
    bank, bank_labels = as_samples(bank, bank_labels, "bank")
    check_samples(queries, None, num_classes, "queries")
    check_samples(bank, bank_labels, num_classes, "bank")
    check_dimensions(queries, bank)
    x, y = _array(bank), bank_labels.cpu().numpy()
    if (y == y[0]).all():
        raise ValueError(f"bank_labels: got the single class {y[0]}, expected at least two for a linear classifier")
    with threadpool_limits(1 if x.size * num_classes < SMALL else None):
        weight_decay, notes = _choose(x, y, seed)
        model, converged = _fit(x, y, weight_decay)
    if not converged:
        notes.append(
            f"linear: L-BFGS did not converge in {MAX_ITERATIONS} iterations (weight decay {weight_decay:g}); the "
            "accuracy is that of its last iteration"
        )
    return LinearProbe(torch.from_numpy(model.predict(_array(queries))).to(queries.device), weight_decay, notes)


def _choose(x: Any, y: Any, seed: int) -> tuple[float, list[str]]:
    """Return the weight decay with the best held-out accuracy, the strongest of equals, and notes."""
    held_out = held_out_part(y, seed)
    if not held_out.any() or (y[~held_out] == y[~held_out][0]).all():
        chosen = WEIGHT_DECAYS[len(WEIGHT_DECAYS) // 2]
        return chosen, [f"linear: too few samples per class to hold some out, so the weight decay {chosen:g} is used"]
    accuracies = [(y_held == y[held_out]).mean() for y_held in _path(x[~held_out], y[~held_out], x[held_out])]
    return WEIGHT_DECAYS[int(np.argmax(accuracies))], []


def _path(x: Any, y: Any, queries: Any) -> list[Any]:
    """Return the predictions for each of `WEIGHT_DECAYS`; every solution is the start of the next one."""
    from sklearn.exceptions import ConvergenceWarning  # noqa: PLC0415 - heavy
    from sklearn.linear_model import LogisticRegression  # noqa: PLC0415 - heavy
    from sklearn.preprocessing import StandardScaler  # noqa: PLC0415 - heavy

    scaler = StandardScaler().fit(x)
    x, queries = scaler.transform(x), scaler.transform(queries)
    model, predictions = LogisticRegression(max_iter=MAX_ITERATIONS, warm_start=True), []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # only the last fit is reported
        for weight_decay in WEIGHT_DECAYS:
            model.set_params(C=1 / (len(x) * weight_decay)).fit(x, y)
            predictions.append(model.predict(queries))
    return predictions


def _fit(x: Any, y: Any, weight_decay: float) -> tuple[Any, bool]:
    """Return the classifier of all samples, and whether the solver converged."""
    from sklearn.exceptions import ConvergenceWarning  # noqa: PLC0415 - heavy
    from sklearn.linear_model import LogisticRegression  # noqa: PLC0415 - heavy
    from sklearn.pipeline import make_pipeline  # noqa: PLC0415 - heavy
    from sklearn.preprocessing import StandardScaler  # noqa: PLC0415 - heavy

    model = LogisticRegression(C=1 / (len(x) * weight_decay), max_iter=MAX_ITERATIONS)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        pipeline = make_pipeline(StandardScaler(), model).fit(x, y)
    return pipeline, not any(issubclass(warning.category, ConvergenceWarning) for warning in caught)


def _array(z: Tensor) -> Any:
    return z.detach().cpu().double().numpy()


def held_out_part(y: Any, seed: int) -> Any:
    """Return a mask (N,) of a random fifth of each class, at least one sample; none of a class with a single one.

    Example:
        >>> int(held_out_part(np.array([0] * 10 + [1] * 2 + [2]), seed=0)[10:].sum())
        1
    """
    order = np.random.default_rng(seed).permutation(len(y))
    mask = np.zeros(len(y), dtype=bool)
    for label in np.unique(y):
        members = order[y[order] == label]
        if len(members) > 1:
            mask[members[: max(1, int(HELD_OUT * len(members)))]] = True
    return mask
