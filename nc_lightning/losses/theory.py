"""What theory says about a contrastive loss: its lower bound, and its values at neural and at total collapse."""

import torch
from torch import Tensor

from nc_lightning.geometry import Normalization, collapsed_value, scl_lower_bound, ucl_lower_bound
from nc_lightning.losses.hardening import Hardening
from nc_lightning.losses.links import InfoNCE, Link
from nc_lightning.losses.pairs import Negatives, Positives
from nc_lightning.losses.queue import FeatureQueue


class TheoreticalValues:
    """The part of `ContrastiveLoss` that says how far from optimal a value is; its attributes are explained there."""

    negatives: Negatives
    temperature: float | Tensor
    num_negatives: int | None
    normalization: Normalization
    include_self: bool
    link: Link
    hardening: Hardening
    positives: Positives
    tau_plus: float
    queue: FeatureQueue | None

    @property
    def tau(self) -> float:
        """The temperature as a number, also where it is learnt."""
        return self.temperature.item() if isinstance(self.temperature, Tensor) else self.temperature

    @property
    def supervised(self) -> bool:
        """Whether labels decide which samples are negatives."""
        return self.negatives == "other_classes"

    def lower_bound(
        self, num_classes: int, batch_size: int | None = None, feature_dim: int | None = None
    ) -> float | None:
        """Smallest value the loss can have in expectation over batches with balanced classes.

        Args:
            num_classes: Number of classes C.
            batch_size: N. An unsupervised anchor is not its own negative, so N decides how often a negative is of the
                anchor's class; None stands for large batches.
            feature_dim: d; None stands for enough.

        Returns:
            The bound, in nats where psi is a logarithm. None where there is none, or none that can be met: without
            normalization, for positives by view, with debiasing, with past features, which another encoder made, for
            d < C - 1, and for links that sum over the negatives where their number is not known. For HUCL it is the
            bound of UCL, which holds but is not tight; see `neural_collapse_value`.
        """
        if self.normalization == "none" or self.positives == "view" or self.tau_plus > 0 or self.queue is not None:
            return None
        if feature_dim is not None and feature_dim < num_classes - 1:
            return None
        k = self.num_negatives
        if self.supervised:
            if self._sums_over_the_batch:
                if batch_size is None:
                    return None
                k = batch_size - batch_size // num_classes
            return scl_lower_bound(num_classes, self.tau, k, self.link)
        if self._sums_over_the_batch:
            return None
        collision = None
        if batch_size is not None and not self.include_self:
            collision = max(0.0, (batch_size / num_classes - 1) / (batch_size - 1)) if batch_size > 1 else 0.0
        return ucl_lower_bound(num_classes, self.tau, k, self.link, collision)

    def neural_collapse_value(self, num_classes: int, batch_size: int | None = None) -> float | None:
        """Value at neural collapse, which hardened unsupervised losses do not have as their minimum.

        Args:
            num_classes: Number of classes C.
            batch_size: N, as in `lower_bound`.

        Returns:
            The value for balanced classes, in nats where psi is a logarithm; None where `lower_bound` is None. It is
            that bound, but for hardened unsupervised losses, whose weights favor negatives of the anchor's class.

        Example:
            >>> from nc_lightning.losses import ContrastiveLoss
            >>> loss = ContrastiveLoss("all", beta=5.0)
            >>> round(loss.lower_bound(100), 4), round(loss.neural_collapse_value(100), 4)
            (0.3152, 0.5615)
        """
        bound = self.lower_bound(num_classes, batch_size)
        if bound is None or self.supervised:
            return bound
        size = num_classes if batch_size is None else batch_size
        own = round(size / num_classes) - int(batch_size is not None and not self.include_self)
        others = size - round(size / num_classes)
        s = torch.tensor([[1.0] * own + [-1 / (num_classes - 1)] * others], dtype=torch.float64)
        weights = self.hardening.log_weights(s, torch.ones_like(s, dtype=torch.bool)).exp()
        collision = min(1.0, float(weights[0, :own].sum()))
        return ucl_lower_bound(num_classes, self.tau, self.num_negatives, self.link, collision)

    @property
    def collapsed_value(self) -> float | None:
        """Loss when all features are equal: log 2 for the usual link, whatever the hardness and the temperature.

        None for links that sum over all negatives of a batch, where it depends on the batch.
        """
        return None if self._sums_over_the_batch else collapsed_value(self.link, self.num_negatives)

    @property
    def _sums_over_the_batch(self) -> bool:
        return isinstance(self.link, InfoNCE) and self.link.form == "sum" and self.num_negatives is None
