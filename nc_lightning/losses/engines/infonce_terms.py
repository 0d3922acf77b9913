"""Hardness and temperature of the exact loss, and what they make of similarities: sums of terms and their gradient."""

import math
from typing import NamedTuple

import torch
from torch import Tensor

from nc_lightning.losses.engines.sorted_batch import SortedBatch
from nc_lightning.losses.links import InfoNCE


class InfoNCETerms(NamedTuple):
    """Link, hardness and temperature, and what they make of a similarity.

    Terms are of two kinds: first the hardened e^{(beta + 1 / temperature) s}, then the weights e^{beta s} alone.

    Attributes:
        link: InfoNCE with alpha > 0; its sum form multiplies the sum by the number of the anchor's negatives.
        beta: Hardness of the weights w_n ~ e^{beta s_in}.
        temperature: tau.
        differentiate: Whether gradients flow through the weights.
    """

    link: InfoNCE
    beta: float
    temperature: float
    differentiate: bool

    @property
    def exponent(self) -> float:
        """Exponent of the hardened terms to base 2, per unit of s: `exp2` takes a third of the time of `exp`."""
        return (self.beta + 1 / self.temperature) / math.log(2)

    @property
    def kinds_summed(self) -> int:
        """Number of kinds whose sums need terms: without hardness, the weights are 1."""
        return 1 + (self.beta > 0)

    @property
    def kinds_pushed(self) -> int:
        """Number of kinds that have a gradient."""
        return 1 + (self.beta > 0 and self.differentiate)

    @property
    def share_of_weights(self) -> float:
        """Exponent of the weights alone over that of the hardened terms."""
        return self.beta / (self.beta + 1 / self.temperature)

    def terms(self, exponents: Tensor, smallest: float | None = None) -> Tensor:
        """Turn (kinds, rows, columns), of which the first holds the exponents of its kind, into terms, in place.

        Equation 14.
        """
        if len(exponents) > 1:
            torch.mul(exponents[0], self.share_of_weights, out=exponents[1])
        if smallest is not None:
            exponents.clamp_(min=smallest)
        return exponents.exp2_()

    def empty_sums(self, z: Tensor) -> Tensor:
        """Return (kinds, N) sums of terms, before any is added."""
        return z.new_zeros(self.kinds_summed, len(z))

    def of_negatives(self, sums: Tensor, batch: SortedBatch, rows: slice = slice(None)) -> Tensor:
        """Return what a positive is compared with, L_i - log alpha, from the sums of these anchors (Equation 3)."""
        weights = sums[1] if len(sums) > 1 else batch.negative_counts[rows]
        negative = (sums[0] / weights).log_()
        if self.link.alpha != 1:
            negative -= math.log(self.link.alpha)
        if self.link.form == "sum":
            negative += batch.negative_counts[rows].to(negative).log()
        return negative

    def pushes(self, push: Tensor, sums: Tensor) -> Tensor:
        """Share each anchor's push (N,) among its terms: (kinds, N), what each is to be multiplied by (Equation 6)."""
        shares = push / sums[: self.kinds_pushed]
        if self.kinds_pushed > 1:
            # The weights' own derivative: beta times (share of the hardened terms - share of the weights alone).
            extra = self.beta * self.temperature
            shares[0] *= 1 + extra
            shares[1] *= -extra
        return shares

    def gradient_of_temperature(self, gradient: Tensor, z: Tensor) -> Tensor:
        """Return the derivative of the loss by the temperature from that by the features (N, d) (Equation 9)."""
        # Similarities enter divided by the temperature, and each reaches two rows.
        derivative: Tensor = -torch.linalg.vecdot(gradient, z).sum() / (2 * self.temperature)
        return derivative
