"""Theoretical values of a contrastive loss: its lower bound, and its values at neural and total collapse."""

import math
from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor

from nc_lightning.geometry import (
    HUCLOptimum,
    Normalization,
    SCLOptimum,
    collapsed_value,
    hucl_lower_bound,
    hucl_neural_collapse_value,
    hucl_optimum,
    scl_lower_bound,
    scl_optimum,
    ucl_lower_bound,
)
from nc_lightning.losses.hardening import Exponential, Hardening
from nc_lightning.losses.links import InfoNCE, Link
from nc_lightning.losses.pairs import Negatives, Positives, ignores_labels
from nc_lightning.losses.queue import FeatureQueue

MOST_CLASS_SIZES = 50
"""Number of different class sizes up to which the optimum of SCL is computed in training; 50 take seconds."""


class TheoreticalValues:
    """Part of `ContrastiveLoss` that computes its theoretical values; see there for the attributes."""

    negatives: Negatives
    temperature: float | Tensor
    num_negatives: int | None
    normalization: Normalization
    include_self: bool
    link: Link
    hardening: Hardening
    positives: Positives
    replacement: bool
    tau_plus: float
    queue: FeatureQueue | None

    @property
    def tau(self) -> float:
        """Temperature as a number, also if it is learned."""
        return self.temperature.item() if isinstance(self.temperature, Tensor) else self.temperature

    @property
    def supervised(self) -> bool:
        """Whether negatives are samples of other classes only."""
        return self.negatives == "other_classes"

    def lower_bound(
        self,
        num_classes: int,
        batch_size: int | None = None,
        feature_dim: int | None = None,
        counts: Sequence[float] | None = None,
    ) -> float | None:
        """Return the lower bound of the expected loss over batches with balanced classes, or of one batch.

        For HUCL with InfoNCE and exponential hardening it is tight, see `nc_lightning.geometry.hucl_lower_bound`, and
        differs from the value at neural collapse beyond the critical hardness. For other hardenings and links it is the
        bound of UCL, which is not tight for hardened losses.

        Args:
            num_classes: Number of classes C.
            batch_size: Batch size N, on which the share of an anchor's unsupervised negatives in its own class
                depends; None for the limit of large batches.
            feature_dim: Feature dimension d; None to assume d >= C - 1.
            counts: Samples of each class if they are unbalanced: of the batch for UCL and HUCL, of the training set for
                SCL and HSCL, whose bound is for batches with the same shares. None for balanced classes.

        Returns:
            The bound, in nats if psi is a logarithm. None if no bound is known or attainable: without normalization
            (except for HUCL), with positives by view and ``all`` negatives, with debiasing, with a queue, for
            d < C - 1, and for links that sum over an unknown number of negatives. By view with ``other_classes`` it is
            for known labels.
        """
        if ignores_labels(self.positives, self.negatives) or self.tau_plus > 0 or self.queue is not None:
            return None
        if feature_dim is not None and feature_dim < num_classes - 1:
            return None
        sizes = self._balanced(num_classes, batch_size) if counts is None else counts
        options = self._of_hucl(batch_size if counts is None else round(sum(counts)), sizes)
        if options is not None and (self.hardness > 0 or self._sums_over_the_batch or counts is not None):
            if self.hardness == 0 and self.normalization == "none":
                return None
            if counts is not None:
                sizes = [*counts, *[0] * (num_classes - len(counts))]  # classes that the batch does not have
            classes = num_classes if sizes is None else len(sizes)
            bound = hucl_lower_bound(classes, counts=sizes, normalization=self.normalization, **options)
            return bound + math.log(self._negatives_summed(batch_size))
        if self.normalization == "none" or (self._sums_over_the_batch and not (self.supervised and batch_size)):
            return None
        k = self.num_negatives
        if self.supervised:
            if counts is not None:
                optimum = self._unbalanced(counts) if len(counts) > 0 else None
                return None if optimum is None else optimum.loss
            if self._sums_over_the_batch and batch_size is not None:
                k = batch_size - batch_size // num_classes
            return scl_lower_bound(num_classes, self.tau, k, self.link)
        if counts is not None:
            return None
        collision, drawn_from = None, None
        if batch_size is not None and not self.include_self:
            collision = max(0.0, (batch_size / num_classes - 1) / (batch_size - 1)) if batch_size > 1 else 0.0
        if k is not None and not self.replacement and batch_size is not None and batch_size % num_classes == 0:
            drawn_from = batch_size - (not self.include_self)
        return ucl_lower_bound(num_classes, self.tau, k, self.link, collision, drawn_from=drawn_from)

    def hucl_optimum(self, num_classes: int, batch_size: int | None = None) -> HUCLOptimum | None:
        """Return the minimum of HUCL for balanced classes in the unit ball, and the geometry that attains it.

        Args:
            num_classes: Number of classes C.
            batch_size: Batch size N, as in `lower_bound`.

        Returns:
            The minimum, with the hardness up to which it is neural collapse; None for other losses, and where the
            minimum is not known.

        Example:
            >>> from nc_lightning.losses import HUCLLoss
            >>> optimum = HUCLLoss(beta=5.0).hucl_optimum(num_classes=100, batch_size=500)
            >>> round(optimum.loss, 4), round(optimum.critical_beta, 2)
            (0.4717, 3.25)
        """
        sizes = self._balanced(num_classes, batch_size)
        options = self._of_hucl(batch_size, sizes)
        if options is None or self.normalization == "none" or self.lower_bound(num_classes, batch_size) is None:
            return None
        return hucl_optimum(num_classes, counts=sizes, **options)

    def optimal_gram(
        self,
        num_classes: int,
        batch_size: int | None = None,
        counts: Sequence[float] | None = None,
        feature_dim: int | None = None,
    ) -> Tensor | None:
        """Return the Gram matrix of the class means at the minimum of the loss.

        Args:
            num_classes: Number of classes C.
            batch_size: Batch size N, as in `lower_bound`.
            counts: Training samples of each class, for SCL; None for balanced classes.
            feature_dim: Feature dimension d; None to assume d >= C.

        Returns:
            Matrix (C, C) in float64; None if the minimum is neural collapse, or not known. Of the minima of HUCL, it is
            the one of unit norm, which training in the unit ball approaches; for d = C - 1 in the unit ball, where
            there is none of unit norm, it is the only one, a smaller simplex.

        Example:
            >>> from nc_lightning.losses import HUCLLoss
            >>> HUCLLoss(beta=5.0).optimal_gram(num_classes=3)
            tensor([[1.0000, 0.7334, 0.7334],
                    [0.7334, 1.0000, 0.7334],
                    [0.7334, 0.7334, 1.0000]], dtype=torch.float64)
            >>> HUCLLoss(beta=0.5).optimal_gram(num_classes=3) is None
            True
        """
        if counts is not None:
            known = (
                self.supervised and self.hardness == 0 and self.normalization != "none" and min(counts, default=0) > 0
            )
            optimum = self._unbalanced(counts) if known and self.tau_plus == 0 and self.queue is None else None
            return None if optimum is None else optimum.gram
        hardened = self.hucl_optimum(num_classes, batch_size)
        if hardened is None or hardened.zero_sum == 0:
            return None
        fits = feature_dim is None or feature_dim >= num_classes
        if not fits and (feature_dim != num_classes - 1 or self.normalization == "unit_sphere"):
            return None
        between = 1 - hardened.distance if fits else -hardened.distance / num_classes
        gram = torch.full((num_classes, num_classes), between, dtype=torch.float64)
        return gram.fill_diagonal_(between + hardened.distance)

    def neural_collapse_value(
        self, num_classes: int, batch_size: int | None = None, counts: Sequence[float] | None = None
    ) -> float | None:
        """Return the value of the loss at neural collapse, which does not minimize all hardened unsupervised losses.

        Args:
            num_classes: Number of classes C.
            batch_size: Batch size N, as in `lower_bound`.
            counts: Samples of each class in the batch, for unsupervised losses; None for balanced classes.

        Returns:
            The value, in nats if psi is a logarithm; None if `lower_bound` is None, and without normalization. It
            equals that bound except for hardened unsupervised losses, whose weights favor negatives of the anchor's
            own class, and for unbalanced classes.

        Example:
            >>> from nc_lightning.losses import ContrastiveLoss
            >>> loss = ContrastiveLoss("all", beta=5.0)
            >>> round(loss.lower_bound(100), 4), round(loss.neural_collapse_value(100), 4)
            (0.4829, 0.5615)
        """
        bound = self.lower_bound(num_classes, batch_size)
        if bound is None or self.normalization == "none":
            return None
        sizes = self._balanced(num_classes, batch_size) if counts is None else counts
        options = self._of_hucl(batch_size, sizes)
        if options is not None:
            value = hucl_neural_collapse_value(num_classes, counts=sizes, **options)
            return value + math.log(self._negatives_summed(batch_size))
        if self.supervised or self.hardness == 0:
            return bound
        size = num_classes if batch_size is None else batch_size
        own = round(size / num_classes) - int(batch_size is not None and not self.include_self)
        s = torch.full((1, size - (size > num_classes and not self.include_self)), -1 / (num_classes - 1)).double()
        s[:, :own] = 1.0
        weights = self.hardening.log_weights(s, torch.ones_like(s, dtype=torch.bool)).exp()
        collision = min(1.0, float(weights[0, :own].sum()))
        return ucl_lower_bound(num_classes, self.tau, self.num_negatives, self.link, collision)

    @property
    def bound_is_of_batch(self) -> bool:
        """Whether `lower_bound` takes the counts of a batch: unsupervised InfoNCE with exponential hardening."""
        return self._of_hucl(2, None) is not None

    def _unbalanced(self, counts: Sequence[float]) -> SCLOptimum | None:
        """Return the optimum of SCL for unbalanced classes, None if it cannot be computed."""
        # The number of negatives differs between classes, or the program takes minutes.
        if self._sums_over_the_batch or len({*counts}) > MOST_CLASS_SIZES:
            return None
        return _scl_optimum(tuple(counts), self.positives, self.tau, self.link, self.num_negatives)

    @property
    def hardness(self) -> float:
        """Hardness beta; infinite for hardenings without one, which are hard as well."""
        return getattr(self.hardening, "beta", math.inf)

    def _balanced(self, num_classes: int, batch_size: int | None) -> list[float] | None:
        """Return the samples of each class of a balanced batch."""
        return None if batch_size is None else [batch_size / num_classes] * num_classes

    def _negatives_summed(self, batch_size: int | None) -> int:
        if not isinstance(self.link, InfoNCE) or self.link.form == "mean":
            return 1
        return self.num_negatives or (batch_size or 0) - (not self.include_self)

    def _of_hucl(self, batch_size: int | None, counts: Sequence[float] | None) -> dict[str, Any] | None:
        """Return the arguments of the bound of HUCL; None if it does not apply to this loss."""
        if self.supervised or type(self.hardening) is not Exponential or not isinstance(self.link, InfoNCE):
            return None
        if (self.num_negatives is not None and not self.replacement) or (self._sums_over_the_batch and not batch_size):
            return None
        if counts is not None and max(counts) <= 1 and not self.include_self:
            return None  # no pair
        return {
            "beta": self.hardness,
            "temperature": self.tau,
            "num_negatives": self.num_negatives,
            "include_self": self.include_self,
            "alpha": self.link.alpha / self._negatives_summed(batch_size),
        }

    @property
    def collapsed_value(self) -> float | None:
        """Loss when all features are equal: log 2 for the default link, with any hardness and temperature.

        None for links that sum over all negatives of a batch, for which it depends on the batch.
        """
        return None if self._sums_over_the_batch else collapsed_value(self.link, self.num_negatives)

    @property
    def _sums_over_the_batch(self) -> bool:
        return isinstance(self.link, InfoNCE) and self.link.form == "sum" and self.num_negatives is None


@lru_cache(maxsize=16)
def _scl_optimum(
    counts: tuple[float, ...], positives: Positives, temperature: float, link: Link, num_negatives: int | None
) -> SCLOptimum | None:
    """Compute the optimum of SCL once: by label, a class has as many pairs as the square of its samples."""
    shares: dict[str, Any] = {"counts": counts}
    if positives == "view":
        shares = {"priors": [count / sum(counts) for count in counts]}
    try:
        return scl_optimum(**shares, temperature=temperature, link=link, num_negatives=num_negatives)
    except ValueError:
        return None  # too many draws to enumerate, or a link with kinks
