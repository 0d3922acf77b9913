"""The contrastive losses as modules: SCL, HSCL, UCL and HUCL are one loss with different negatives and hardness."""

import warnings

import torch
from torch import Tensor, nn

from nc_lightning.geometry import TOTAL_COLLAPSE, Normalization, normalize, scl_lower_bound, ucl_lower_bound
from nc_lightning.geometry.checks import check_count, check_features, check_labels, check_number
from nc_lightning.geometry.normalization import check_normalization
from nc_lightning.losses.exact import exact_loss
from nc_lightning.losses.hardness import effective_negatives, false_negative_share
from nc_lightning.losses.pairs import Negatives, Pairs, check_negatives, label_pairs
from nc_lightning.losses.sampled import sampled_loss


class ContrastiveLoss(nn.Module):
    """Contrastive loss with hardened negatives; `SCLLoss`, `HSCLLoss`, `UCLLoss` and `HUCLLoss` name its four uses.

    For an anchor i, a positive j and negatives n with inner products s of the normalised features:

        loss_ij = log(1 + sum_n w_n e^{(s_in - s_ij) / temperature}),   w_n ~ e^{beta s_in}, summing to 1 over n

    averaged over all (anchor, positive) pairs of the batch. Which samples are positives and negatives is said at
    `nc_lightning.losses.pairs.label_pairs`. ``beta`` acts on the similarity, ``temperature`` on the loss. An anchor
    without a positive or without a negative contributes nothing; a batch without any usable pair gives 0 with a
    gradient of zeros, and one warning. Computed in float32 or better with autocast off, in log space.

    Args:
        negatives: ``other_classes`` (supervised) or ``all`` other samples whatever their label (unsupervised).
        beta: Hardness >= 0; 0 weighs all negatives alike. May be set between calls, as `HardNegativeSampler` does.
        temperature: tau > 0, the only scale there is.
        num_negatives: None for the exact expectation over the batch's negatives; k to draw k negatives with
            replacement for every pair, as the paper's code does with k = 256.
        normalization: ``unit_ball``, ``unit_sphere`` or ``none``; idempotent, so the model may normalise as well.
        differentiate_weights: Whether gradients flow through the weights; the paper's do not.
        include_self: Count an anchor as its own positive (and negative, among ``all``), as the paper's code does.

    Shape:
        ``z`` (N, d) floating point, ``labels`` (N,) integers; returns a 0-dimensional tensor, in nats, in [0, inf).
        At neural collapse with balanced classes it equals `lower_bound`; with all features equal, log 2.

    Raises:
        ValueError: If an argument is out of its range, or a shape does not fit.
        TypeError: If ``z`` is not floating point or ``labels`` not integer.

    Source:
        Jiang, Nguyen, Aeron, Ishwar (2023), arXiv 2311.05139, the definitions of SCL, UCL, HSCL and HUCL.

    Example:
        >>> from nc_lightning.geometry import simplex_etf
        >>> labels = torch.arange(3).repeat(2)
        >>> loss = ContrastiveLoss(negatives="other_classes", beta=5.0)
        >>> round(loss(simplex_etf(3, 2)[labels], labels).item(), 6), round(loss.lower_bound(num_classes=3), 6)
        (0.201413, 0.201413)
    """

    def __init__(
        self,
        negatives: Negatives = "other_classes",
        beta: float = 0.0,
        temperature: float = 1.0,
        num_negatives: int | None = None,
        normalization: Normalization = "unit_ball",
        differentiate_weights: bool = False,
        include_self: bool = False,
    ) -> None:
        super().__init__()
        check_negatives(negatives)
        check_number("temperature", temperature, above=0)
        check_normalization(normalization)
        if num_negatives is not None:
            check_count("num_negatives", num_negatives)
            if differentiate_weights:
                raise ValueError(
                    "differentiate_weights: got True with num_negatives, expected False: draws have no gradient"
                )
        self.negatives = negatives
        self.beta = beta
        self.temperature = temperature
        self.num_negatives = num_negatives
        self.normalization = normalization
        self.differentiate_weights = differentiate_weights
        self.include_self = include_self
        self._warned = False

    @property
    def beta(self) -> float:
        """Hardness of the negatives, >= 0."""
        return self._beta

    @beta.setter
    def beta(self, beta: float) -> None:
        check_number("beta", beta, at_least=0)
        self._beta = beta

    @property
    def supervised(self) -> bool:
        """Whether labels decide which samples are negatives."""
        return self.negatives == "other_classes"

    def forward(self, z: Tensor, labels: Tensor) -> Tensor:
        """Compute the loss of a batch; see the class."""
        with torch.autocast(z.device.type, enabled=False):
            z, pairs = self._prepare(z, labels)
            if not pairs.anchors.any():
                self._warn_once()
                return z.sum() * 0.0
            if self.num_negatives is None:
                return exact_loss(z, pairs, self.beta, self.temperature, self.differentiate_weights)
            return sampled_loss(z, pairs, self.beta, self.temperature, self.num_negatives)

    def _prepare(self, z: Tensor, labels: Tensor) -> tuple[Tensor, Pairs]:
        check_features(z)
        check_labels(labels, len(z))
        return normalize(z, self.normalization), label_pairs(labels.to(z.device), self.negatives, self.include_self)

    def _warn_once(self) -> None:
        if not self._warned:
            self._warned = True
            warnings.warn(
                "a batch holds no anchor with both a positive and a negative, so its loss is 0: "
                "use class-balanced batches, larger batches, or two views of each image",
                stacklevel=3,
            )

    @torch.no_grad()
    def negative_statistics(self, z: Tensor, labels: Tensor) -> dict[str, Tensor]:
        """Say what the hardness does to the negatives of a batch.

        Args:
            z: Features (N, d).
            labels: (N,).

        Returns:
            ``effective``, the effective number of negatives, and for unsupervised losses ``false_share``, the share of
            weight on negatives of the anchor's own class.
        """
        with torch.autocast(z.device.type, enabled=False):
            z, pairs = self._prepare(z, labels)
            similarity = z @ z.T
            statistics = {"effective": effective_negatives(similarity, pairs, self.beta)}
            if not self.supervised:
                statistics["false_share"] = false_negative_share(similarity, pairs, self.beta)
            return statistics

    def lower_bound(self, num_classes: int, batch_size: int | None = None) -> float | None:
        """Smallest value the loss can have in expectation over batches with balanced classes.

        Args:
            num_classes: Number of classes C.
            batch_size: N. An unsupervised anchor is not its own negative, so N decides how often a negative is of the
                anchor's class; None stands for large batches.

        Returns:
            The bound in nats. None without normalisation, where there is none. For HUCL it is the bound of UCL, which
            holds but is not tight.
        """
        if self.normalization == "none":
            return None
        if self.supervised:
            return scl_lower_bound(num_classes, self.temperature, self.num_negatives)
        collision = None
        if batch_size is not None and not self.include_self:
            collision = max(0.0, (batch_size / num_classes - 1) / (batch_size - 1)) if batch_size > 1 else 0.0
        return ucl_lower_bound(num_classes, self.temperature, self.num_negatives, collision)

    @property
    def collapsed_value(self) -> float:
        """Loss in nats when all features are equal: log 2, whatever the hardness and the temperature."""
        return TOTAL_COLLAPSE

    def extra_repr(self) -> str:
        """Show the arguments."""
        return (
            f"negatives={self.negatives!r}, beta={self.beta}, temperature={self.temperature}, "
            f"num_negatives={self.num_negatives}, normalization={self.normalization!r}"
        )


class SCLLoss(ContrastiveLoss):
    """Supervised contrastive loss: negatives of other classes, all weighing alike. See `ContrastiveLoss`.

    Example:
        >>> SCLLoss()(torch.tensor([[1.0, 0.0], [1.0, 0.0], [-1.0, 0.0]]), torch.tensor([0, 0, 1]))
        tensor(0.1269)
    """

    def __init__(
        self,
        temperature: float = 1.0,
        num_negatives: int | None = None,
        normalization: Normalization = "unit_ball",
        include_self: bool = False,
    ) -> None:
        super().__init__("other_classes", 0.0, temperature, num_negatives, normalization, False, include_self)


class HSCLLoss(ContrastiveLoss):
    """Hard supervised contrastive loss: negatives of other classes, the similar ones weighing more.

    Never below `SCLLoss`, and equal to it at neural collapse and for ``beta=0``. See `ContrastiveLoss`.

    Example:
        >>> z, labels = torch.eye(4), torch.tensor([0, 0, 1, 1])
        >>> bool(HSCLLoss(beta=0)(z, labels) == SCLLoss()(z, labels))
        True
    """

    def __init__(
        self,
        beta: float = 5.0,
        temperature: float = 1.0,
        num_negatives: int | None = None,
        normalization: Normalization = "unit_ball",
        differentiate_weights: bool = False,
        include_self: bool = False,
    ) -> None:
        super().__init__(
            "other_classes", beta, temperature, num_negatives, normalization, differentiate_weights, include_self
        )


class UCLLoss(ContrastiveLoss):
    """Unsupervised contrastive loss: every other sample is a negative, all weighing alike. See `ContrastiveLoss`.

    Labels name the positives: of the same class as in the paper's experiments, or of the same image if each image has
    a label of its own.

    Example:
        >>> UCLLoss()(torch.tensor([[1.0, 0.0], [1.0, 0.0], [-1.0, 0.0]]), torch.tensor([0, 0, 1]))
        tensor(0.4496)
    """

    def __init__(
        self,
        temperature: float = 1.0,
        num_negatives: int | None = None,
        normalization: Normalization = "unit_ball",
        include_self: bool = False,
    ) -> None:
        super().__init__("all", 0.0, temperature, num_negatives, normalization, False, include_self)


class HUCLLoss(ContrastiveLoss):
    """Hard unsupervised contrastive loss: every other sample is a negative, the similar ones weighing more.

    Never below `UCLLoss`, and equal to it for ``beta=0``; neural collapse is not its minimum, as hardness finds the
    negatives of the anchor's own class. See `ContrastiveLoss`.

    Example:
        >>> z, labels = torch.eye(4), torch.tensor([0, 0, 1, 1])
        >>> bool(HUCLLoss(beta=2.0)(z, labels) >= UCLLoss()(z, labels))
        True
    """

    def __init__(
        self,
        beta: float = 5.0,
        temperature: float = 1.0,
        num_negatives: int | None = None,
        normalization: Normalization = "unit_ball",
        differentiate_weights: bool = False,
        include_self: bool = False,
    ) -> None:
        super().__init__("all", beta, temperature, num_negatives, normalization, differentiate_weights, include_self)
