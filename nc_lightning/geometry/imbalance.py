"""The optimum of SCL for unbalanced classes, where class means form no simplex and small classes can coincide."""

import itertools
import math
from collections.abc import Sequence
from typing import NamedTuple, Protocol

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid

from nc_lightning.checks import check_count, check_number
from nc_lightning.geometry.psd_program import minimize_over_gram_matrices

_COINCIDE = 1 - 1e-6
_MOST_TERMS = 1_000_000
_MOST_RATIO = 1e6
_LEAST_TEMPERATURE = 0.003
_WIDEST_GAP = 1e-3


class DifferentiableLink(Protocol):
    """Protocol of a link psi that an optimum can be computed for: those of `nc_lightning.losses.links`."""

    def __call__(self, t: Tensor, log_weights: Tensor, count: Tensor) -> Tensor:
        """Compute psi along the last dimension, from t, log weights and the number of negatives."""


def _mean_infonce(t: Tensor, log_weights: Tensor, count: Tensor) -> Tensor:
    return -logsigmoid(-(t + log_weights).logsumexp(-1))


class SCLOptimum(NamedTuple):
    """Optimum of SCL over features in the unit ball.

    Attributes:
        products: Inner products (g, g) of optimal class means of each two of g groups of classes with equal shares; on
            the diagonal, of two classes of the group.
        group: Group (P,) of each of the P present classes, in their order.
        loss: Loss there, in nats if psi is a logarithm.
        gap: Certified bound of its distance from the minimum, by convex duality.
        minority_collapsed: Whether two classes coincide: a cosine is above 1 - 1e-6.
    """

    products: Tensor
    group: Tensor
    loss: float
    gap: float
    minority_collapsed: bool

    @property
    def gram(self) -> Tensor:
        """Inner products (P, P) of the optimal class means, float64, in the order of the P present classes.

        They are cosines, because the optimal class means have unit norm. The matrix is made when it is read.
        """
        return self.products[:, self.group][self.group].fill_diagonal_(1.0)


class _Groups:
    """Loss of collapsed classes, as a function of the inner products of the means of groups of exchangeable classes.

    Classes with equal shares are exchangeable and the loss is convex, so an optimum is symmetric within each group: it
    follows from the Gram matrix K (g, g) of the mean vectors of g groups. Classes have unit norm, because a longer
    mean lowers the loss of its own class and changes no other. Within a group of m classes, the inner product is
    therefore (m K_gg - 1)/(m - 1).
    """

    def __init__(
        self,
        sizes: Tensor,
        shares: Tensor,
        rest: Tensor,
        anchors: Tensor,
        temperature: float,
        link: DifferentiableLink,
        num_negatives: int | None,
        number: Tensor,
    ) -> None:
        self.sizes, self.anchors = sizes.double(), sizes * anchors
        self.temperature, self.link, self.number = temperature, link, number[:, None]
        self.alone = sizes == 1
        self.own = torch.eye(len(sizes), dtype=torch.bool)
        weights = shares * torch.where(self.own, sizes - 1, sizes) / rest[:, None]
        self.log_weights, self.chances = _draws(weights, num_negatives)

    def within(self, products: Tensor) -> Tensor:
        """Return the inner products (g,) of two classes of each group; 1 for a group of one class."""
        others = torch.where(self.alone, 1.0, self.sizes - 1)
        return torch.where(self.alone, 1.0, (self.sizes * products.diagonal() - 1) / others)

    def loss(self, products: Tensor) -> Tensor:
        """Return the loss for the inner products (g, g) of the group means."""
        t = (torch.where(self.own, self.within(products).diag(), products) - 1) / self.temperature
        per_draw = self.link(t[:, None], self.log_weights, self.number)
        return (self.anchors * (self.chances * per_draw).sum(1)).sum()


def _draws(weights: Tensor, num_negatives: int | None) -> tuple[Tensor, Tensor]:
    """Return log shares (g or 1, n, g) of the groups among the negatives, and the chances (g, n) of each.

    Without a number of negatives, the shares are the expected ones; k draws have a multinomial distribution.
    """
    if num_negatives is None:
        return weights.log().clamp(min=-1e300)[:, None], torch.ones(len(weights), 1, dtype=torch.float64)
    groups, k = len(weights), num_negatives
    if math.comb(k + groups - 1, k) * groups**2 > _MOST_TERMS:
        raise ValueError(
            f"num_negatives: got {k} with {groups} different class sizes, which have too many outcomes to enumerate; "
            "expected fewer, or None for the limit of many negatives"
        )
    last = k + groups - 1
    bars = torch.tensor(list(itertools.combinations(range(last), groups - 1)), dtype=torch.int64).view(-1, groups - 1)
    edges = torch.nn.functional.pad(torch.nn.functional.pad(bars, (1, 0), value=-1), (0, 1), value=last)
    drawn = (edges.diff(dim=1) - 1).double()
    ways = math.lgamma(k + 1) - torch.lgamma(drawn + 1).sum(1)
    chances = (ways + torch.special.xlogy(drawn, weights[:, None]).sum(2)).exp()
    return (drawn / k).log().clamp(min=-1e300)[None], chances


@torch.inference_mode(False)
@torch.enable_grad()
def scl_optimum(
    priors: Sequence[float] | None = None,
    counts: Sequence[int] | None = None,
    temperature: float = 1.0,
    link: DifferentiableLink | None = None,
    num_negatives: int | None = None,
) -> SCLOptimum:
    r"""Compute the least SCL loss of unbalanced classes in the unit ball, and the class means that attain it.

    The loss is least when every class has collapsed to its mean, and is then a convex function of the Gram matrix G:
    :math:`\sum_c p_c \log(1 + \sum_{j \ne c} \frac{p_j}{1 - p_c} e^{(G_{cj} - G_{cc})/\tau})`. It is minimized over
    all G that are positive semidefinite with a diagonal of at most 1, so the dimension must be at least the rank of G.

    Args:
        priors: Probabilities (C,) of the classes, for the population.
        counts: Samples (C,) of each class in a batch, whose loss averages over pairs of anchor and positive: class c
            has weight n_c (n_c - 1), and its negatives are the other N - n_c samples. Either these or ``priors``.
        temperature: tau > 0.
        link: psi, from `nc_lightning.losses.links`; None for InfoNCE in its mean form.
        num_negatives: Number of negatives k, drawn with replacement; None for the exact loss, their limit.

    Returns:
        The optimum, without classes whose share is 0.

    Raises:
        ValueError: If an argument is out of its range, fewer than two classes are present, or no class has a pair; if k
            draws have too many outcomes to enumerate; or if the gap stays above a thousandth of the loss, which happens
            for links with kinks.

    Source:
        arXiv 2311.05139 for the loss. For equal shares, the optimum is neural collapse.

    Example:
        >>> optimum = scl_optimum(priors=[50 / 59] + 9 * [1 / 59])
        >>> optimum.minority_collapsed, round(optimum.loss, 6), optimum.gap < 1e-10
        (True, 0.142165, True)
    """
    _check_temperature(temperature)
    shares = present_shares(priors, counts)
    # Equal up to rounding; the shares of equal classes are then those of their mean.
    _, member, sizes = (shares / shares.max() * 1e12).round().unique(return_inverse=True, return_counts=True)
    share = torch.zeros(len(sizes), dtype=torch.float64).index_add_(0, member, shares) / sizes
    rest = shares.sum() - share
    pairs = share if counts is None else share * (share - 1)
    number = torch.ones_like(rest) if counts is None else rest
    if num_negatives is not None:
        check_count("num_negatives", num_negatives)
        number = torch.full_like(rest, num_negatives)
    anchors = pairs / (sizes * pairs).sum()
    groups = _Groups(sizes, share, rest, anchors, temperature, link or _mean_infonce, num_negatives, number)
    minimum = minimize_over_gram_matrices(groups.loss, groups.alone, groups.anchors)
    if minimum.gap > max(1e-12, _WIDEST_GAP * abs(minimum.value)):
        raise ValueError(
            f"link: got {groups.link!r}, for which the optimum was found only to within {minimum.gap:.1e}; "
            "expected a smooth link such as InfoNCE or Logistic"
        )
    products = torch.where(groups.own, groups.within(minimum.products), minimum.products)
    of_two = products[~(groups.own & groups.alone)]
    return SCLOptimum(products, member, minimum.value, minimum.gap, bool((of_two > _COINCIDE).any()))


@torch.inference_mode(False)
@torch.enable_grad()
def minority_collapse_ratio(
    num_majority: int,
    num_minority: int,
    temperature: float = 1.0,
    link: DifferentiableLink | None = None,
    minority_count: int | None = None,
) -> float:
    """Return the least imbalance ratio at which the small classes coincide at the optimum of SCL.

    There are large classes of equal probability and small ones of equal probability; the ratio is the one between them.
    With the small classes in one point and the mean of the large ones at its best place, they stay there if the loss
    does not fall when they spread.

    Args:
        num_majority: Number of large classes, at least 1.
        num_minority: Number of small classes, at least 2.
        temperature: tau > 0.
        link: psi, from `nc_lightning.losses.links`; None for InfoNCE in its mean form.
        minority_count: Samples of each small class in a batch, at least 2, for its exact loss, which averages over
            pairs and so has quadratic weights of classes; None for the population.

    Returns:
        The ratio, above 1; infinity if the small classes stay apart at every ratio up to a million.

    Raises:
        ValueError: If an argument is out of its range.

    Source:
        The optimality conditions of the program of `scl_optimum`.

    Example:
        >>> round(minority_collapse_ratio(num_majority=1, num_minority=9), 3)
        24.928
        >>> minority_collapse_ratio(num_majority=5, num_minority=5)
        inf
        >>> round(minority_collapse_ratio(num_majority=5, num_minority=5, minority_count=2), 3)
        4.239
    """
    from scipy.optimize import brentq  # noqa: PLC0415 - heavy

    check_count("num_majority", num_majority)
    check_count("num_minority", num_minority, at_least=2)
    if minority_count is not None:
        check_count("minority_count", minority_count, at_least=2)
    _check_temperature(temperature)
    sizes = torch.tensor([num_majority, num_minority])

    def slopes(cosine: float, groups: _Groups) -> tuple[float, float]:
        # Row of the gradient times products [[c^2, c], [c, 1]] = v v^T, v = (c, 1): it is diag(y) v at the optimum.
        v = torch.tensor([cosine, 1.0], dtype=torch.float64)
        products = torch.outer(v, v).requires_grad_()
        (gradient,) = torch.autograd.grad(groups.loss(products), products)
        large, small = ((gradient + gradient.T) / 2 @ v).tolist()
        return large, small

    def spread_helps(log_ratio: float) -> float:
        shares = torch.tensor([math.exp(log_ratio), 1.0], dtype=torch.float64) * (minority_count or 1)
        pairs = shares if minority_count is None else shares * (shares - 1)
        total = (sizes * shares).sum()
        anchors, rest = pairs / (sizes * pairs).sum(), total - shares
        groups = _Groups(sizes, shares, rest, anchors, temperature, link or _mean_infonce, None, rest)
        cosine = -1.0
        if num_majority > 1 and slopes(-1.0, groups)[0] < 0:
            cosine = brentq(lambda c: slopes(c, groups)[0], -1.0, 0.0, xtol=1e-300, rtol=1e-14)
        return slopes(cosine, groups)[1]

    most = math.log(_MOST_RATIO)
    return math.exp(brentq(spread_helps, 0.0, most, xtol=1e-14)) if spread_helps(most) <= 0 else math.inf


def _check_temperature(temperature: float) -> None:
    check_number("temperature", temperature, above=0)
    if temperature < _LEAST_TEMPERATURE:
        raise ValueError(
            f"temperature: got {temperature}, expected at least {_LEAST_TEMPERATURE} for the optimum of unbalanced "
            "classes: e^(-2 / temperature) is below the range of float64"
        )


def present_shares(priors: Sequence[float] | None, counts: Sequence[int] | None) -> Tensor:
    """Check the shares of the classes and return those above 0, in float64."""
    if (priors is None) == (counts is None):
        raise ValueError("priors, counts: got both or none of them, expected one: probabilities, or samples of a batch")
    if priors is not None:
        shares = torch.tensor([float(share) for share in priors], dtype=torch.float64)
        if not (shares >= 0).all() or not abs(shares.sum() - 1) <= 1e-6:
            raise ValueError(f"priors: got {list(priors)}, expected probabilities that sum to 1")
        shares = shares / shares.sum()
    else:
        shares = torch.tensor([float(count) for count in (() if counts is None else counts)], dtype=torch.float64)
        if not (shares.isfinite() & (shares >= 0) & (shares == shares.round())).all():
            raise ValueError(
                f"counts: got {list(() if counts is None else counts)}, expected numbers of samples, integers >= 0"
            )
    present = shares[shares > 0]
    name = "priors" if counts is None else "counts"
    if len(present) < 2:
        raise ValueError(f"{name}: got {len(present)} classes with samples, expected at least 2, to have negatives")
    if counts is not None and present.max() < 2:
        raise ValueError("counts: got at most one sample of each class, expected a class with 2, to have positives")
    return present
