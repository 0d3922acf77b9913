"""Theoretical values of a contrastive loss: its lower bound, and its values at neural and total collapse."""

import torch
from torch import Tensor

from nc_lightning.geometry import Normalization, collapsed_value, scl_lower_bound, ucl_lower_bound
from nc_lightning.losses.hardening import Hardening
from nc_lightning.losses.links import InfoNCE, Link
from nc_lightning.losses.pairs import Negatives, Positives
from nc_lightning.losses.queue import FeatureQueue


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
        self, num_classes: int, batch_size: int | None = None, feature_dim: int | None = None
    ) -> float | None:
        """Return the lower bound of the expected loss over batches with balanced classes.

        Args:
            num_classes: Number of classes C.
            batch_size: Batch size N, on which the share of an anchor's unsupervised negatives in its own class
                depends; None for the limit of large batches.
            feature_dim: Feature dimension d; None to assume d >= C - 1.

        Returns:
            The bound, in nats if psi is a logarithm. None if no bound is known or attainable: without normalization,
            with positives by view, with debiasing, with a queue, for d < C - 1, and for links that sum over an unknown
            number of negatives. For HUCL it is the bound of UCL, which is not tight; see `neural_collapse_value`.
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
        """Return the value of the loss at neural collapse, which does not minimize hardened unsupervised losses.

        Args:
            num_classes: Number of classes C.
            batch_size: Batch size N, as in `lower_bound`.

        Returns:
            The value for balanced classes, in nats if psi is a logarithm; None if `lower_bound` is None. It equals that
            bound except for hardened unsupervised losses, whose weights favor negatives of the anchor's own class.

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
        """Loss when all features are equal: log 2 for the default link, with any hardness and temperature.

        None for links that sum over all negatives of a batch, for which it depends on the batch.
        """
        return None if self._sums_over_the_batch else collapsed_value(self.link, self.num_negatives)

    @property
    def _sums_over_the_batch(self) -> bool:
        return isinstance(self.link, InfoNCE) and self.link.form == "sum" and self.num_negatives is None
