"""Named losses of the field, equal to their papers; most are settings of `ContrastiveLoss`."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from nc_lightning.checks import check_features, check_labels, check_number
from nc_lightning.distributed.global_batch import Sync
from nc_lightning.geometry import normalize
from nc_lightning.losses.contrastive import ContrastiveLoss
from nc_lightning.losses.engines.known_gradient import sum_over_processes
from nc_lightning.losses.engines.log_partition import log_partition
from nc_lightning.losses.engines.sorted_batch import SortedBatch
from nc_lightning.losses.links import InfoNCE
from nc_lightning.losses.loss_batch import LossBatch
from nc_lightning.losses.pairs import sample_ids

Part = Callable[[Tensor, float | Tensor], Tensor]
"""Function from the features (N, d) of the global batch and the temperature to this process's part of the loss."""


class SupConLoss(ContrastiveLoss):
    r"""Supervised contrastive loss of Khosla et al., L_out, on the unit sphere.

    .. math::
        \frac{1}{|A|} \sum_{i \in A} \frac{1}{|P(i)|} \sum_{p \in P(i)}
        -\log \frac{e^{s_{ip} / \tau}}{\sum_{n \ne i} e^{s_{in} / \tau}}

    with the positives P(i) of the anchors A that have any. Every anchor has the same weight, where `ContrastiveLoss`
    gives every pair the same one: for balanced batches it equals ``UCLLoss(temperature, normalization="unit_sphere",
    link=InfoNCE("sum", alpha=0))``. The paper sums over anchors, its code takes the mean.

    Args:
        temperature: tau > 0; a `torch.nn.Parameter` of shape () to learn it.
        sync: ``global`` for the loss over the batches of all processes, ``local`` for each process's own batch.

    Raises:
        ValueError: If the temperature is not a positive number, or the loss has a queue.

    Source:
        Khosla et al. (2020), arXiv 2004.11362, eq. 2.

    Example:
        >>> z, labels = torch.eye(4), torch.tensor([0, 0, 0, 1])
        >>> SupConLoss(temperature=0.5)(z, labels)
        tensor(1.0986)
    """

    def __init__(self, temperature: float | Tensor = 0.1, sync: Sync = "global") -> None:
        options: dict[str, Any] = {"normalization": "unit_sphere", "sync": sync}
        super().__init__("all", 0.0, temperature, link=InfoNCE("sum", alpha=0), **options)

    def lower_bound(self, *args: Any, counts: Sequence[float] | None = None, **kwargs: Any) -> float | None:
        """Return the bound for balanced classes; None for others, as anchors have equal weights and not pairs."""
        return None if counts is not None and len({*counts}) > 1 else super().lower_bound(*args, **kwargs)

    def _is_tiled(self, past: Tensor | None) -> bool:
        return _without_queue(self, past)

    def _tiled(self, batch: LossBatch, order: SortedBatch, tau: float) -> Tensor:
        first, size = _groups(order)
        weights = _equal(size > 1, batch.z)

        def part(z: Tensor, temperature: float | Tensor) -> Tensor:
            anchors = _own(batch, z)
            attraction = (weights * _similarity_to_positives(z, first, size))[anchors].sum() / temperature
            return log_partition(z, anchors, weights[anchors], temperature) - attraction

        return _over_processes(self, batch, part)


class _ViewLoss(ContrastiveLoss):
    """Base of the losses whose positives are the other views of a sample, on the unit sphere; they ignore classes.

    Without ``instances``, labels are the ids of the samples; a row with a negative one is a view of no other.

    Args:
        sync: ``global`` for the loss over the batches of all processes, ``local`` for each process's own batch.
        **options: Arguments of `ContrastiveLoss`.
    """

    def __init__(self, sync: Sync, **options: Any) -> None:
        super().__init__(normalization="unit_sphere", positives="view", sync=sync, **options)

    def lower_bound(self, *args: Any, **kwargs: Any) -> None:
        """Return None: the bounds are those of classes, which this loss ignores."""

    def _prepare(self, z: Tensor, labels: Tensor, instances: Tensor | None, *args: Any, **kwargs: Any) -> LossBatch:
        check_features(z)
        check_labels(labels, len(z))
        if instances is None:  # a row with an unknown id is a view of no other
            instances = sample_ids(labels, None, "label", self.negatives)[:, 0]
        unknown = torch.full_like(labels, -1, dtype=torch.int64)
        return super()._prepare(z, unknown, instances, *args, **kwargs)


class NTXentLoss(_ViewLoss):
    r"""Normalized temperature-scaled cross-entropy of SimCLR: positives are views, all other samples are in the sum.

    .. math::
        \ell_{ij} = -\log \frac{e^{s_{ij} / \tau}}{\sum_{n \ne i} e^{s_{in} / \tau}}

    averaged over all pairs of views of the same sample. ``loss(z, labels, instances)`` takes the ids of the samples as
    ``instances``, or as ``labels`` if there are no instances; classes are ignored.

    Args:
        temperature: tau > 0; a `torch.nn.Parameter` of shape () to learn it.
        sync: ``global`` for the loss over the batches of all processes, ``local`` for each process's own batch.

    Source:
        Chen et al. (2020), arXiv 2002.05709, eq. 1, there for two views.

    Example:
        >>> NTXentLoss(temperature=0.5)(torch.eye(4), torch.tensor([0, 1, 0, 1]))
        tensor(1.0986)
    """

    def __init__(self, temperature: float | Tensor = 0.5, sync: Sync = "global") -> None:
        super().__init__(sync, negatives="all", temperature=temperature, link=InfoNCE("sum", alpha=0))


class DCLLoss(_ViewLoss):
    r"""Decoupled contrastive loss: `NTXentLoss` without the views of the anchor's own sample in the sum.

    .. math::
        \ell_{ij} = -s_{ij} / \tau + \log \sum_{n \notin \text{views of } i} e^{s_{in} / \tau}

    Args:
        temperature: tau > 0; a `torch.nn.Parameter` of shape () to learn it.
        sync: ``global`` for the loss over the batches of all processes, ``local`` for each process's own batch.

    Source:
        Yeh et al. (2021), arXiv 2110.06848, L_DC, there for two views.

    Example:
        >>> DCLLoss(temperature=0.1)(torch.eye(4), torch.tensor([0, 1, 0, 1]))
        tensor(0.6931)
    """

    def __init__(self, temperature: float | Tensor = 0.1, sync: Sync = "global") -> None:
        super().__init__(sync, negatives="other_classes", temperature=temperature, link=InfoNCE("sum", alpha=0))


class HCLLoss(_ViewLoss):
    r"""Hard negatives of Robinson et al., debiased, with gradients through the weights.

    .. math::
        \ell_{ij} = \log(1 + k\, g\, e^{-s_{ij} / \tau}), \quad g = \max\Bigl(\frac{\sum_n w_n e^{s_{in} / \tau} -
        \tau^+ e^{s_{ij} / \tau}}{1 - \tau^+},\, e^{-1 / \tau}\Bigr), \quad w_n \propto e^{\beta s_{in} / \tau}

    over the k views n of other samples. The paper's beta is that of `ContrastiveLoss` times the temperature, so the
    attribute ``beta`` is ``beta / temperature``. The memory is O(N d).

    Args:
        beta: Concentration >= 0 of the weights, in the convention of the paper.
        temperature: tau > 0, a number.
        tau_plus: Probability in [0, 1) that a negative is of the anchor's class.
        sync: ``global`` for the loss over the batches of all processes, ``local`` for each process's own batch.

    Source:
        Robinson et al. (2021), arXiv 2010.04592, eq. 4, and the authors' code, there for two views.

    Example:
        >>> HCLLoss(beta=1.0, temperature=0.5, tau_plus=0.0)(torch.eye(4), torch.tensor([0, 1, 0, 1]))
        tensor(1.0986)
    """

    def __init__(
        self, beta: float = 1.0, temperature: float = 0.5, tau_plus: float = 0.1, sync: Sync = "global"
    ) -> None:
        check_number("beta", beta, at_least=0)
        check_number("temperature", temperature, above=0)
        options: dict[str, Any] = {"link": InfoNCE("sum"), "differentiate_weights": True, "tau_plus": tau_plus}
        super().__init__(sync, negatives="other_classes", beta=beta / temperature, temperature=temperature, **options)


class DHELLoss(_ViewLoss):
    r"""Decoupled hyperspherical energy loss: negatives are other samples in the same view as the anchor.

    .. math::
        \ell_{ij} = -s_{ij} / \tau + \log \sum_{n \ne i \text{ in the view of } i} e^{s_{in} / \tau}

    averaged over all pairs, so that each view is the anchor in turn. The k-th row of a sample in the batch is its k-th
    view. The authors' code with ``include_augs=True`` instead adds the logarithms of both views to a single positive.

    Args:
        temperature: tau > 0; a `torch.nn.Parameter` of shape () to learn it.
        sync: ``global`` for the loss over the batches of all processes, ``local`` for each process's own batch.

    Raises:
        ValueError: If the temperature is not a positive number, or the loss has a queue.

    Source:
        Koromilas et al. (2024), arXiv 2405.18045, L_DHEL, there for two views.

    Example:
        >>> DHELLoss(temperature=0.3)(torch.eye(4), torch.tensor([0, 1, 0, 1]))
        tensor(0.)
    """

    def __init__(self, temperature: float | Tensor = 0.3, sync: Sync = "global") -> None:
        super().__init__(sync, negatives="other_classes", temperature=temperature, link=InfoNCE("sum", alpha=0))

    def _is_tiled(self, past: Tensor | None) -> bool:
        return _without_queue(self, past)

    def _tiled(self, batch: LossBatch, order: SortedBatch, tau: float) -> Tensor:
        first, size = _groups(order)
        position = first.argsort(stable=True)  # groups are numbered by their start
        view = torch.empty_like(size).index_copy_(0, position, torch.arange(len(size), device=size.device))
        view -= first
        counts = view.bincount()
        weights = _equal((size > 1) & (counts[view] > 1), batch.z)

        def part(z: Tensor, temperature: float | Tensor) -> Tensor:
            own = torch.zeros_like(view, dtype=torch.bool)
            own[_own(batch, z)] = True
            total = -(weights * _similarity_to_positives(z, first, size))[own].sum() / temperature
            for number in range(len(counts)):
                rows = torch.nonzero(view == number).squeeze(1)
                if len(rows) > 1:
                    anchors = torch.nonzero(own[rows]).squeeze(1)
                    total = total + log_partition(z[rows], anchors, weights[rows][anchors], temperature)
            return total

        return _over_processes(self, batch, part)


def _without_queue(loss: ContrastiveLoss, past: Tensor | None) -> bool:
    if past is not None:
        raise ValueError(f"queue: got a queue for {type(loss).__name__}, expected none: its negatives are in the batch")
    return True


def _over_processes(loss: ContrastiveLoss, batch: LossBatch, part: Part) -> Tensor:
    """Sum the parts of all processes; each gets the normalized features of the global batch."""
    z = normalize(batch.z, loss.normalization)
    if batch.shares is None:
        return part(z, loss.temperature)
    return sum_over_processes(z, loss.temperature, batch.shares, part)


def _own(batch: LossBatch, z: Tensor) -> Tensor:
    """Return the indices of this process's samples in the global batch (N, d)."""
    own = slice(0, len(z)) if batch.shares is None else batch.shares.own
    return torch.arange(own.start, own.stop, device=z.device)


def _groups(order: SortedBatch) -> tuple[Tensor, Tensor]:
    """Return a number of each sample's positive id (N,), and how many samples (N,) have it, in the original order."""
    numbers = torch.stack([order.end - order.size, order.size])
    first, size = torch.empty_like(numbers).index_copy_(1, order.order, numbers)
    return first, size


def _equal(usable: Tensor, z: Tensor) -> Tensor:
    """Return equal weights (N,) of the usable samples, which sum to 1."""
    return usable.to(z) / usable.sum()


def _similarity_to_positives(z: Tensor, group: Tensor, size: Tensor) -> Tensor:
    """Return the mean similarity (N,) of each sample to the others of its group, 0 without any."""
    sums = torch.zeros_like(z).index_add(0, group, z)
    total: Tensor = torch.linalg.vecdot(sums[group] - z, z)
    return total / (size - 1).clamp(min=1)
