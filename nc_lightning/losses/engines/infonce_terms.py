"""Terms of the exact InfoNCE loss: their exponents, sums and gradients, given hardness and temperature."""

import math
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid

from nc_lightning.losses.engines.sorted_batch import SortedBatch
from nc_lightning.losses.hardening import Hardening
from nc_lightning.losses.links import InfoNCE

# 2^-65 is negligible next to the largest term, which is 1, and its products are not denormal, which is slow.
SMALLEST_EXPONENT = -65.0


class InfoNCETerms(NamedTuple):
    """Link, hardness and temperature, and the terms they define for a similarity s.

    There are two kinds of terms: first the hardened terms e^{(beta + 1 / temperature) s}, then the weights e^{beta s}.
    For another hardening these are eta(s) e^{s / temperature} and eta(s).

    Attributes:
        link: InfoNCE; its sum form multiplies the mean by the number of the anchor's negatives.
        beta: Hardness of the weights w_n ~ e^{beta s_in}; ignored for another hardening.
        temperature: tau.
        differentiate: Whether gradients flow through the weights, which only those of e^{beta s} support.
        hardening: eta, if it is not e^{beta s}.
    """

    link: InfoNCE
    beta: float
    temperature: float
    differentiate: bool
    hardening: Hardening | None = None

    @property
    def exponent(self) -> float:
        """Base-2 exponent of the hardened terms per unit of s: `exp2` takes a third of the time of `exp`."""
        return (self.beta + 1 / self.temperature) / math.log(2)

    @property
    def scale(self) -> float:
        """Factor of the similarities from which blocks compute terms: exponents, or s for another hardening."""
        return self.exponent if self.hardening is None else 1.0

    @property
    def kinds_summed(self) -> int:
        """Number of kinds of terms to sum: without hardness, the weights are 1 and need no terms."""
        return 1 + (self.beta > 0 or self.hardening is not None)

    @property
    def kinds_pushed(self) -> int:
        """Number of kinds of terms with a gradient."""
        return 1 + (self.beta > 0 and self.differentiate and self.hardening is None)

    @property
    def share_of_weights(self) -> float:
        """Ratio of the exponent of the weights to that of the hardened terms."""
        return self.beta / (self.beta + 1 / self.temperature)

    @property
    def log_alpha(self) -> float:
        """Logarithm of alpha, which L_i and the losses of pairs are relative to; 0 for alpha = 0."""
        return math.log(self.link.alpha) if self.link.alpha > 0 else 0.0

    def terms(self, exponents: Tensor) -> Tensor:
        """Compute the terms (kinds, rows, columns) in place, from the exponents in the first kind (Equation 14)."""
        if len(exponents) > 1:
            torch.mul(exponents[0], self.share_of_weights, out=exponents[1])
        return exponents.exp2_()

    def relative_terms(self, tiles: Tensor, batch: SortedBatch, rows: slice) -> Tensor:
        """Overwrite the similarities to all samples times `scale`, in the first kind, by terms relative to the largest.

        Equation 16. Returns the logarithm (rows,) of what this takes out of the ratio of the sums of the two kinds.
        """
        columns = slice(0, tiles.shape[2])
        if self.hardening is None:
            batch.hide(tiles[0], rows, columns)
            if len(tiles) > 1:
                torch.mul(tiles[0], self.share_of_weights, out=tiles[1])
        else:
            negatives = torch.ones_like(tiles[0], dtype=torch.bool)
            batch.hide(negatives, rows, columns, False)
            torch.mul(self.hardening.log_eta_of_negatives(tiles[0], negatives), 1 / math.log(2), out=tiles[1])
            torch.add(tiles[1], tiles[0], alpha=1 / (self.temperature * math.log(2)), out=tiles[0])
        largest = tiles.amax(2)
        tiles.sub_(largest[:, :, None]).clamp_(min=SMALLEST_EXPONENT).exp2_()
        return (largest[0] - largest[1] if len(tiles) > 1 else largest[0]) * math.log(2)

    def empty_sums(self, z: Tensor) -> Tensor:
        """Return zeros (kinds, N) in which to sum terms."""
        return z.new_zeros(self.kinds_summed, len(z))

    def of_negatives(self, sums: Tensor, batch: SortedBatch, rows: slice = slice(None)) -> Tensor:
        """Compute L_i - log alpha, which positives are compared with, from the sums of anchors (Equation 3)."""
        weights = sums[1] if len(sums) > 1 else batch.negative_counts[rows]
        negative = (sums[0] / weights).log_()
        if self.log_alpha != 0:
            negative -= self.log_alpha
        if self.link.form == "sum":
            negative += batch.negative_counts[rows].to(negative).log()
        return negative

    def negated_loss(self, margin: Tensor) -> Tensor:
        """Sum the negated losses of pairs, relative to log alpha, given their margins (Equation 4).

        A margin is s_ij / temperature - (L_i - log alpha), and inf where there is no pair.
        """
        if self.link.alpha == 0:
            return margin.masked_fill(margin == torch.inf, 0.0).sum()
        return logsigmoid(margin).sum()

    def pull_(self, margin: Tensor) -> Tensor:
        """Overwrite the margins of pairs by the derivatives of their losses by L_i (Equation 5)."""
        return margin.ne_(torch.inf) if self.link.alpha == 0 else margin.neg_().sigmoid_()

    def pushes(self, push: Tensor, sums: Tensor) -> Tensor:
        """Distribute each anchor's push (N,) over its terms; return their factors (kinds, N) (Equation 6)."""
        shares = push / sums[: self.kinds_pushed]
        if self.kinds_pushed > 1:
            # Derivative of the weights: beta times (share of the hardened terms - share of the weights).
            extra = self.beta * self.temperature
            shares[0] *= 1 + extra
            shares[1] *= -extra
        return shares
