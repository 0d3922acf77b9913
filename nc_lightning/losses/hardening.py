"""Hardening eta: how much more a negative weighs the more it looks like the anchor.

A hardening is non-negative and non-decreasing in the similarity s; weights are eta(s) over its sum, for each anchor by
itself. These are the conditions under which hard negatives never lower the loss (arXiv 2311.05139).
"""

from abc import ABC, abstractmethod
from collections.abc import Callable

import torch
from torch import Tensor

from nc_lightning.checks import check_fraction, check_number


class Hardening(ABC):
    """Weights of an anchor's negatives; subclasses say how they grow."""

    never_nan = False
    """Whether eta is a number for every similarity, so that nobody has to look, which waits for a device."""

    @abstractmethod
    def log_eta(self, similarity: Tensor, negatives: Tensor) -> Tensor:
        """Logarithm of eta, up to a constant for each row.

        Args:
            similarity: (N, M) similarities s of N anchors to M samples.
            negatives: (N, M) bool, which of them are negatives.

        Returns:
            (N, M); -inf where eta is 0; anything off the mask.
        """

    def log_weights(self, similarity: Tensor, negatives: Tensor) -> Tensor:
        """Logarithm of the weights of an anchor's negatives, normalized over each row.

        Args:
            similarity: (N, M) similarities s.
            negatives: (N, M) bool mask.

        Returns:
            (N, M); hugely negative off the mask and where eta is 0. A row sums to 1 after exp if it has a negative.
            Where eta is 0 for all negatives of an anchor, they weigh alike.

        Raises:
            ValueError: If eta is NaN for a negative.
        """
        lowest = torch.finfo(similarity.dtype).min
        # Where features are not finite the loss is NaN whatever they weigh; but one cannot draw by weights of NaN.
        similarity = similarity.nan_to_num(0.0, 0.0, 0.0)
        log_eta = self.log_eta(similarity, negatives).masked_fill(~negatives, -torch.inf)
        if not self.never_nan and log_eta.isnan().any():
            raise ValueError(f"hardening: got NaN weights from {self!r}, expected eta(s) >= 0 for every similarity")
        vanishing = (log_eta == -torch.inf).all(1, keepdim=True)
        log_eta = torch.where(vanishing & negatives, 0.0, log_eta)
        return log_eta.clamp(min=lowest).log_softmax(1)

    def __repr__(self) -> str:
        """Show the arguments."""
        arguments = ", ".join(f"{name}={value!r}" for name, value in vars(self).items())
        return f"{type(self).__name__}({arguments})"


class _ByPower(Hardening):
    """A hardening with a hardness ``beta``, the power of something positive."""

    never_nan = True

    def __init__(self, beta: float) -> None:
        check_number("beta", beta, at_least=0)
        self.beta = beta


class Exponential(_ByPower):
    """eta(s) = e^{beta s}; ``beta`` 0 weighs all alike. The paper's choice.

    Args:
        beta: Hardness >= 0.

    Raises:
        ValueError: If beta is negative.

    Example:
        >>> s, mask = torch.tensor([[0.0, 1.0]]), torch.ones(1, 2, dtype=torch.bool)
        >>> Exponential(beta=1.0).log_weights(s, mask).exp()
        tensor([[0.2689, 0.7311]])
    """

    def log_eta(self, similarity: Tensor, negatives: Tensor) -> Tensor:
        """Return beta s."""
        return self.beta * similarity


class Polynomial(_ByPower):
    """eta(s) = max(0, 1 + s)^beta, made for similarities in [-1, 1].

    Args:
        beta: Power >= 0; 0 weighs all alike.

    Raises:
        ValueError: If beta is negative.

    Example:
        >>> s, mask = torch.tensor([[0.0, 1.0]]), torch.ones(1, 2, dtype=torch.bool)
        >>> Polynomial(beta=2.0).log_weights(s, mask).exp()
        tensor([[0.2000, 0.8000]])
    """

    def log_eta(self, similarity: Tensor, negatives: Tensor) -> Tensor:
        """Return beta log(1 + s)."""
        if self.beta == 0:
            return torch.zeros_like(similarity)
        positive = similarity > -1
        return torch.where(positive, self.beta * torch.where(positive, similarity, 0.0).log1p(), -torch.inf)


class Threshold(Hardening):
    """eta(s) = 1 for the hardest fraction of an anchor's negatives, ties included, and 0 for the others.

    Args:
        fraction: Share in (0, 1]; at least one negative is kept.

    Raises:
        ValueError: If the fraction is out of its range.

    Example:
        >>> s, mask = torch.tensor([[0.1, 0.3, 0.2, 0.0]]), torch.ones(1, 4, dtype=torch.bool)
        >>> Threshold(fraction=0.5).log_weights(s, mask).exp()
        tensor([[0.0000, 0.5000, 0.5000, 0.0000]])
    """

    never_nan = True

    def __init__(self, fraction: float) -> None:
        check_fraction("fraction", fraction, "(0, 1]")
        self.fraction = fraction

    def log_eta(self, similarity: Tensor, negatives: Tensor) -> Tensor:
        """Return 0 for the hardest, -inf for the others."""
        ordered = similarity.detach().masked_fill(~negatives, -torch.inf).sort(1, descending=True).values
        kept = (self.fraction * negatives.sum(1)).ceil().clamp(min=1).long()
        weakest = ordered.gather(1, (kept - 1)[:, None])
        return torch.where(similarity >= weakest, 0.0, -torch.inf).to(similarity)


class CustomHardening(Hardening):
    """eta from a function of your own, checked on a grid before it is used.

    Args:
        eta: Function of a tensor of similarities, elementwise.
        span: The grid covers s in [-span, span]; 1 for normalized features.

    Raises:
        ValueError: If eta is negative, not finite or decreases anywhere on the grid.

    Example:
        >>> s, mask = torch.tensor([[-0.5, 0.5]]), torch.ones(1, 2, dtype=torch.bool)
        >>> CustomHardening(lambda s: (s + 1) ** 2).log_weights(s, mask).exp()
        tensor([[0.1000, 0.9000]])
        >>> CustomHardening(lambda s: s**2)
        Traceback (most recent call last):
        ...
        ValueError: eta: decreases between s = -1.00 and s = -0.99, expected it to be non-decreasing
    """

    def __init__(self, eta: Callable[[Tensor], Tensor], span: float = 1.0) -> None:
        check_number("span", span, above=0)
        self.eta = eta
        s = torch.linspace(-span, span, 201, dtype=torch.float64)
        values = eta(s)
        wrong = torch.nonzero(~torch.isfinite(values) | (values < 0))
        if len(wrong) > 0:
            i = wrong[0, 0]
            raise ValueError(f"eta: got {values[i].item()} at s = {s[i].item():.2f}, expected a finite number >= 0")
        falls = torch.nonzero(values.diff() < -1e-12 * values.max())
        if len(falls) > 0:
            a, b = s[falls[0, 0]].item(), s[falls[0, 0] + 1].item()
            raise ValueError(f"eta: decreases between s = {a:.2f} and s = {b:.2f}, expected it to be non-decreasing")

    def log_eta(self, similarity: Tensor, negatives: Tensor) -> Tensor:
        """Return log eta(s)."""
        return self.eta(similarity).log()
