"""Link functions psi, which turn similarity differences t = (s_negative - s_positive) / temperature into a loss.

A link has the form psi(t_1, ..., t_k) = phi(sum_n w_n chi(t_n)) and is convex and non-decreasing in each t, as the
theorems on neural collapse require (arXiv 2311.05139).
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid, relu

from nc_lightning.checks import check_choice, check_number

InfoNCEForm = Literal["mean", "sum"]


class Link(ABC):
    """Base class of the links: the loss of one (anchor, positive) pair as a function of its negatives."""

    @abstractmethod
    def __call__(self, t: Tensor, log_weights: Tensor, count: Tensor) -> Tensor:
        """Compute psi along the last dimension.

        Args:
            t: Differences (..., n), t_n = (s_negative - s_positive) / temperature; arbitrary where the weight is 0.
            log_weights: Logarithms (..., n) of weights that sum to 1; a large negative number for non-negatives.
            count: Number of negatives (...), for links that sum over them.

        Returns:
            Loss (...), in nats if psi is a logarithm.
        """

    def mixture(self, t: list[float], weights: list[float], count: int = 1) -> float:
        """Compute psi at given values of t with given weights in float64, for the theoretical bounds.

        Example:
            >>> round(InfoNCE().mixture([0.0], [1.0]), 6)
            0.693147
        """
        weight = torch.tensor(weights, dtype=torch.float64)
        values = torch.tensor(t, dtype=torch.float64)
        number = torch.tensor(float(count), dtype=torch.float64)
        return float(self(values, weight.log().clamp(min=-1e300), number))

    def __repr__(self) -> str:
        """Show the arguments."""
        arguments = ", ".join(f"{name}={value!r}" for name, value in vars(self).items())
        return f"{type(self).__name__}({arguments})"


class InfoNCE(Link):
    """Cross-entropy of the positive among the negatives: log(alpha + mean_n e^{t_n}), or with a sum over n.

    Args:
        form: ``mean``, as in the paper, or ``sum``, as in the losses below.
        alpha: Weight >= 0 of the positive in the denominator, in addition to the negatives; usually 1. With 0, the
            denominator holds the negatives only: that of SimCLR and SupCon if all other samples, and so the positives,
            are negatives; that of the decoupled loss if not.

    Raises:
        ValueError: If an argument is out of its range.

    Source:
        arXiv 2311.05139 for the mean; van den Oord et al. (2018), arXiv 1807.03748, for the sum. See `SupConLoss`,
        `NTXentLoss` and `DCLLoss` for settings that equal those losses.

    Example:
        >>> round(InfoNCE(form="sum").mixture([0.0], [1.0], count=3), 6)
        1.386294
    """

    def __init__(self, form: InfoNCEForm = "mean", alpha: float = 1.0) -> None:
        check_choice("form", form, InfoNCEForm)
        check_number("alpha", alpha, at_least=0)
        self.form = form
        self.alpha = alpha

    def of_log_mean(self, log_mean: Tensor, count: Tensor) -> Tensor:
        """Compute psi from log sum_n w_n e^{t_n}."""
        total = log_mean + count.log() if self.form == "sum" else log_mean
        if self.alpha == 0:
            return total
        return math.log(self.alpha) - logsigmoid(math.log(self.alpha) - total)

    def __call__(self, t: Tensor, log_weights: Tensor, count: Tensor) -> Tensor:
        """Compute psi; see `Link`."""
        return self.of_log_mean((t + log_weights).logsumexp(-1), count)


def _weighted_mean(chi: Callable[[Tensor], Tensor], t: Tensor, log_weights: Tensor) -> Tensor:
    """Compute sum_n w_n chi(t_n), ignoring t where the weight is 0, even if it is infinite."""
    weights = log_weights.exp()
    return (weights * chi(torch.where(weights > 0, t, 0.0))).sum(-1)


class _MeanLink(Link):
    """A link with phi the identity: the weighted mean of chi(t)."""

    @abstractmethod
    def chi(self, t: Tensor) -> Tensor:
        """Apply chi elementwise."""

    def __call__(self, t: Tensor, log_weights: Tensor, count: Tensor) -> Tensor:
        """Compute psi; see `Link`."""
        return _weighted_mean(self.chi, t, log_weights)


class Logistic(_MeanLink):
    """Mean of log(1 + e^{t_n}): each negative is compared with the positive separately.

    Source:
        arXiv 2311.05139; Arora et al. (2019), arXiv 1902.09229.

    Example:
        >>> round(Logistic().mixture([0.0, -1.0], [0.5, 0.5]), 6)
        0.503204
    """

    def chi(self, t: Tensor) -> Tensor:
        """Apply log(1 + e^t) elementwise."""
        return -logsigmoid(-t)


class Triplet(_MeanLink):
    """Mean of max(0, t_n + margin): a negative counts until its t_n is below -margin.

    Its lower bound is max(0, margin - C / ((C - 1) temperature)). A loss at the bound shows neural collapse only if the
    margin is at least C / ((C - 1) temperature) and, for C > 3 classes, negatives are hardened: Triplet is not strictly
    convex (`nc_lightning.losses.uniqueness`).

    Args:
        margin: Margin >= 0, on the scale of t.

    Raises:
        ValueError: If the margin is negative.

    Source:
        arXiv 2311.05139; Schroff et al. (2015), arXiv 1503.03832.

    Example:
        >>> Triplet(margin=1.0).mixture([0.0, -2.0], [0.5, 0.5])
        0.5
    """

    def __init__(self, margin: float = 1.0) -> None:
        check_number("margin", margin, at_least=0)
        self.margin = margin

    def chi(self, t: Tensor) -> Tensor:
        """Apply max(0, t + margin) elementwise."""
        return relu(t + self.margin)


class CustomLink(Link):
    """User-defined link phi(sum_n w_n chi(t_n)), which the constructor checks on a grid.

    Args:
        phi: Elementwise function of a tensor.
        chi: Elementwise function of a tensor.
        span: Bound of the grid, which covers t in [-span, span]; use 2 / (smallest temperature).

    Raises:
        ValueError: If psi is not convex and non-decreasing on the grid, or not finite there.

    Example:
        >>> link = CustomLink(phi=torch.log1p, chi=torch.exp)
        >>> round(link.mixture([0.0], [1.0]), 6)
        0.693147
        >>> CustomLink(phi=torch.sin, chi=torch.exp)
        Traceback (most recent call last):
        ...
        ValueError: phi, chi: psi decreases between t = 0.45 and t = 0.46, expected it to be non-decreasing
    """

    def __init__(self, phi: Callable[[Tensor], Tensor], chi: Callable[[Tensor], Tensor], span: float = 10.0) -> None:
        check_number("span", span, above=0)
        self.phi = phi
        self.chi = chi
        self._check(span)

    def __call__(self, t: Tensor, log_weights: Tensor, count: Tensor) -> Tensor:
        """Compute psi; see `Link`."""
        return self.phi(_weighted_mean(self.chi, t, log_weights))

    def _check(self, span: float) -> None:
        """Check psi along lines on which one or several negatives move: a convex psi is convex along each line."""
        t = torch.linspace(-span, span, 2001, dtype=torch.float64)
        fixed = torch.tensor([0.0, -span, span, -span / 2, span / 2], dtype=torch.float64)
        for weight in (1.0, 0.5, 0.1):
            for other in fixed:
                values = self.phi(weight * self.chi(t) + (1 - weight) * self.chi(other.expand_as(t)))
                if not torch.isfinite(values).all():
                    where = t[torch.nonzero(~torch.isfinite(values))[0, 0]].item()
                    raise ValueError(f"phi, chi: psi is not finite at t = {where:.2f}, expected finite numbers")
                tolerance = 1e-9 * values.abs().max()
                falls = torch.nonzero(values.diff() < -tolerance)
                if len(falls) > 0:
                    a, b = t[falls[0, 0]].item(), t[falls[0, 0] + 1].item()
                    raise ValueError(
                        f"phi, chi: psi decreases between t = {a:.2f} and t = {b:.2f}, expected it to be non-decreasing"
                    )
                bends = torch.nonzero(values.diff().diff() < -tolerance)
                if len(bends) > 0:
                    where = t[bends[0, 0] + 1].item()
                    raise ValueError(f"phi, chi: psi is concave around t = {where:.2f}, expected it to be convex")
