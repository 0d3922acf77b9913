"""Hardening functions eta, which give more weight to negatives that are similar to the anchor.

eta is non-negative and non-decreasing in the similarity s; the weights of each anchor's negatives are eta(s) normalized
to sum to 1. Under these conditions hardening never lowers the loss (arXiv 2311.05139).
"""

from abc import ABC, abstractmethod
from collections.abc import Callable
from fractions import Fraction

import torch
from torch import Tensor

from nc_lightning.checks import check_fraction, check_number


class Hardening(ABC):
    """Base class of the hardening functions; subclasses implement `log_eta`."""

    never_nan = False
    """Whether eta is never NaN; if so, the check is skipped, which would synchronize with the device."""

    @abstractmethod
    def log_eta(self, similarity: Tensor, negatives: Tensor) -> Tensor:
        """Compute the logarithm of eta, up to a constant for each row.

        Args:
            similarity: Similarities s (N, M) of N anchors to M samples.
            negatives: Boolean mask (N, M) of the negatives.

        Returns:
            (N, M); -inf where eta is 0; arbitrary values outside the mask.
        """

    def log_weights(self, similarity: Tensor, negatives: Tensor) -> Tensor:
        """Compute the logarithm of the weights of each anchor's negatives, normalized over each row.

        Args:
            similarity: Similarities s (N, M).
            negatives: Boolean mask (N, M) of the negatives.

        Returns:
            (N, M); a large negative number outside the mask and where eta is 0. A row with a negative sums to 1 after
            exp. If eta is 0 for all negatives of an anchor, they are weighted equally.

        Raises:
            ValueError: If eta is NaN for a negative.
        """
        lowest = torch.finfo(similarity.dtype).min
        return self.log_eta_of_negatives(similarity, negatives).clamp(min=lowest).log_softmax(1)

    def log_eta_of_negatives(self, similarity: Tensor, negatives: Tensor) -> Tensor:
        """Compute the logarithm of eta for the negatives of each anchor, up to a constant for each row.

        Args:
            similarity: Similarities s (N, M).
            negatives: Boolean mask (N, M) of the negatives.

        Returns:
            (N, M); -inf outside the mask and where eta is 0. If eta is 0 for all negatives of an anchor, 0 for them.

        Raises:
            ValueError: If eta is NaN for a negative.
        """
        # The loss of non-finite features is NaN with any weights, but drawing negatives needs finite weights.
        similarity = similarity.nan_to_num(0.0, 0.0, 0.0)
        log_eta = self.log_eta(similarity, negatives).masked_fill(~negatives, -torch.inf)
        if not self.never_nan and log_eta.isnan().any():
            raise ValueError(f"hardening: got NaN weights from {self!r}, expected eta(s) >= 0 for every similarity")
        vanishing = (log_eta == -torch.inf).all(1, keepdim=True)
        return torch.where(vanishing & negatives, 0.0, log_eta)

    def __repr__(self) -> str:
        """Show the arguments."""
        arguments = ", ".join(f"{name}={value!r}" for name, value in vars(self).items())
        return f"{type(self).__name__}({arguments})"


class _ByPower(Hardening):
    """A hardening of the form base(s)^beta with a non-negative base."""

    never_nan = True

    def __init__(self, beta: float) -> None:
        check_number("beta", beta, at_least=0)
        self.beta = beta


class Exponential(_ByPower):
    """Hardening eta(s) = e^{beta s}, the paper's choice.

    Args:
        beta: Hardness >= 0; 0 weights all negatives equally.

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
    """Hardening eta(s) = max(0, 1 + s)^beta, for similarities in [-1, 1].

    Args:
        beta: Exponent >= 0; 0 weights all negatives equally.

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
    """Hardening eta(s) = 1 for the hardest fraction of an anchor's negatives, including ties, and 0 for the others.

    The similarity from which eta is 1 depends on the batch; see `ValueThreshold` for a fixed one.

    Args:
        fraction: Fraction in (0, 1] of the negatives to keep; at least one is kept.

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
        """Return 0 for the hardest negatives, -inf for the others."""
        ordered = similarity.detach().masked_fill(~negatives, -torch.inf).sort(1, descending=True).values
        share = Fraction(self.fraction).limit_denominator(10**6)  # floats would round 0.3 of 50 up to 16
        kept = -(-negatives.sum(1) * share.numerator // share.denominator).clamp(max=-1)
        weakest = ordered.gather(1, (kept - 1)[:, None])
        return torch.where(similarity >= weakest, 0.0, -torch.inf).to(similarity)


class ValueThreshold(Hardening):
    """Hardening eta(s) = 1{s >= value}: negatives at least this similar to the anchor weigh equally, others nothing.

    An anchor without such negatives weighs all of its negatives equally. Unlike that of `Threshold`, eta does not
    depend on the batch, as the theorems of arXiv 2311.05139 require.

    Args:
        value: Smallest similarity of a hard negative; for normalized features s is in [-1, 1].

    Raises:
        ValueError: If the value is not a finite number.

    Example:
        >>> s, mask = torch.tensor([[0.1, 0.3, 0.2, 0.0]]), torch.ones(1, 4, dtype=torch.bool)
        >>> ValueThreshold(value=0.2).log_weights(s, mask).exp()
        tensor([[0.0000, 0.5000, 0.5000, 0.0000]])
    """

    never_nan = True

    def __init__(self, value: float) -> None:
        check_number("value", value)
        self.value = value

    def log_eta(self, similarity: Tensor, negatives: Tensor) -> Tensor:
        """Return 0 for negatives at or above the value, -inf for the others."""
        return torch.where(similarity >= self.value, 0.0, -torch.inf).to(similarity)


class CustomHardening(Hardening):
    """Hardening by a user-defined eta, which the constructor checks on a grid.

    Args:
        eta: Elementwise function of a tensor of similarities.
        span: Bound of the grid, which covers s in [-span, span]; 1 for normalized features.

    Raises:
        ValueError: If eta is negative, not finite or decreasing anywhere on the grid.

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
