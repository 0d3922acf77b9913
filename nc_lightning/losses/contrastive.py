"""The contrastive loss as a module; SCL, HSCL, UCL and HUCL differ in its negatives and hardness."""

import warnings
from functools import partial
from typing import Any

import torch
from torch import Tensor

from nc_lightning.checks import check_choice, check_count, check_features, check_fraction, check_labels, check_number
from nc_lightning.distributed.global_batch import Shares, Sync, share_rows
from nc_lightning.geometry import Normalization, normalize
from nc_lightning.losses.diagnostics import negative_statistics
from nc_lightning.losses.engines.autograd import blocks_of_anchors, general_loss, sum_over_anchors
from nc_lightning.losses.engines.infonce_terms import InfoNCETerms
from nc_lightning.losses.engines.known_gradient import sum_over_processes
from nc_lightning.losses.engines.sampled import Draws, sampled_loss
from nc_lightning.losses.engines.sorted_batch import SortedBatch, sort_batch
from nc_lightning.losses.engines.tiled import tiled_loss
from nc_lightning.losses.hardening import Exponential, Hardening
from nc_lightning.losses.links import InfoNCE, Link
from nc_lightning.losses.loss_batch import LossBatch, LossResult
from nc_lightning.losses.pairs import Negatives, Positives, label_pairs, past_ids, sample_ids
from nc_lightning.losses.queue import FeatureQueue
from nc_lightning.losses.scheduled_beta import ScheduledBeta
from nc_lightning.losses.theory import TheoreticalValues


class ContrastiveLoss(TheoreticalValues, ScheduledBeta):
    r"""Contrastive loss with hardened negatives, the base of `SCLLoss`, `HSCLLoss`, `UCLLoss` and `HUCLLoss`.

    For an anchor i, a positive j and negatives n with inner products s of the normalized features:

    .. math::
        \ell_{ij} = \psi(\{t_n\}, \{w_n\}), \quad t_n = (s_{in} - s_{ij}) / \tau, \quad w_n \propto \eta(s_{in}), \quad
        \sum_n w_n = 1

    averaged over all (anchor, positive) pairs of the batch; with the default link and hardening this is
    :math:`\log(1 + \sum_n w_n e^{t_n})` with :math:`w_n \propto e^{\beta s_{in}}`.
    `nc_lightning.losses.pairs.label_pairs` defines positives and negatives. ``beta`` acts on the similarity,
    ``temperature`` on the loss. Anchors without a positive or a negative are skipped; a batch without a usable pair has
    loss 0 with zero gradients, and warns once. All is computed in log space, in float32 or float64, with autocast off.

    Args:
        negatives: ``other_classes`` (supervised), or ``all`` other samples of any class (unsupervised).
        beta: Hardness >= 0; 0 weights all negatives equally. A value that a schedule sets is saved in ``state_dict``.
        temperature: tau > 0; a `torch.nn.Parameter` of shape () to learn it.
        num_negatives: None for the exact expectation over the batch's negatives; k to draw k negatives for every pair,
            as the paper's code does with k = 256.
        normalization: ``unit_ball``, ``unit_sphere`` or ``none``; idempotent, so the model may normalize too.
        differentiate_weights: Whether gradients flow through the weights; None for ``all`` negatives, if not drawn.
        include_self: Count an anchor as its own positive (and negative, among ``all``), as the paper's code does.
        link: psi, from `nc_lightning.losses.links`; None for InfoNCE in its mean form.
        hardening: eta, from `nc_lightning.losses.hardening`; replaces ``beta``. None for `Exponential`.
        positives: ``label`` for samples of the same class, or ``view`` for views of the same sample; labels then only
            decide which samples are of other classes, and have no effect with ``all`` negatives.
        tau_plus: Probability in [0, 1) that a negative is of the anchor's class; its contribution is removed from the
            mean (debiasing). InfoNCE without ``other_classes`` by ``label``.
        replacement: Whether a pair may draw a negative more than once. If not, training needs ``num_negatives``
            negatives for every anchor; evaluation draws all where there are fewer.
        share_draws: Draw once per anchor instead of once per positive.
        sync: ``global`` for the loss over the batches of all processes, ``local`` for each process's own batch. With
            ``global``, every process returns the same value, and gradients averaged by DistributedDataParallel equal
            those of one process. All processes must call the loss, each with all views of its samples.

    Attributes:
        queue: Past features that serve as extra negatives, or None; `HardNegativeSampler` sets it.

    Shape:
        ``z`` (N, d) floating point, ``labels`` (N,) integers, negative where unknown, ``instances`` (N,) integers;
        returns a 0-dimensional tensor in [0, inf), in nats. The loss equals `lower_bound` at neural collapse with
        balanced classes (unless hardened and unsupervised), and `collapsed_value` when all features are equal.

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
        temperature: float | Tensor = 1.0,
        num_negatives: int | None = None,
        normalization: Normalization = "unit_ball",
        differentiate_weights: bool | None = None,
        include_self: bool = False,
        link: Link | None = None,
        hardening: Hardening | None = None,
        positives: Positives = "label",
        tau_plus: float = 0.0,
        replacement: bool = True,
        share_draws: bool = False,
        sync: Sync = "global",
    ) -> None:
        super().__init__()
        check_choice("negatives", negatives, Negatives)
        check_choice("positives", positives, Positives)
        check_choice("sync", sync, Sync)
        if isinstance(temperature, Tensor) and temperature.ndim > 0:
            raise ValueError(f"temperature: got a tensor of shape {tuple(temperature.shape)}, expected ()")
        self.temperature = temperature
        check_number("temperature", self.tau, above=0)
        check_choice("normalization", normalization, Normalization)
        if num_negatives is not None:
            check_count("num_negatives", num_negatives)
            if differentiate_weights:
                raise ValueError(
                    "differentiate_weights: got True with num_negatives, expected False: draws have no gradient"
                )
        link = InfoNCE() if link is None else link
        check_fraction("tau_plus", tau_plus, "[0, 1)", "a probability")
        if tau_plus > 0 and ((negatives, positives) == ("other_classes", "label") or not isinstance(link, InfoNCE)):
            raise ValueError(
                f"tau_plus: got {tau_plus!r}, expected 0 except for unsupervised InfoNCE: a supervised loss has no "
                "negatives of the anchor's class"
            )
        self.negatives = negatives
        self.hardening = Exponential(beta) if hardening is None else hardening
        self.link = link
        self.positives = positives
        self.tau_plus = tau_plus
        self.replacement = replacement
        self.share_draws = share_draws
        self.num_negatives = num_negatives
        self.normalization = normalization
        detached = negatives == "other_classes" or num_negatives is not None
        self.differentiate_weights = not detached if differentiate_weights is None else differentiate_weights
        self.include_self = include_self
        self.sync = sync
        self.queue: FeatureQueue | None = None
        self._warned = False

    def forward(
        self, z: Tensor, labels: Tensor, instances: Tensor | None = None, generator: torch.Generator | None = None
    ) -> Tensor:
        """Compute the loss of a batch; see `compute`."""
        return self.compute(z, labels, instances, generator).value

    def compute(
        self,
        z: Tensor,
        labels: Tensor,
        instances: Tensor | None = None,
        generator: torch.Generator | None = None,
        sync: Sync | None = None,
    ) -> LossResult:
        """Compute the loss of a batch, with the numbers of samples and pairs.

        Args:
            z: Features (N, d).
            labels: Classes (N,), integers, equal for views of a sample; negative if unknown, then a class of its own.
            instances: Sample ids (N,), integers, equal for views of the same sample; None if every row is a separate
                sample.
            generator: Generator for drawing negatives, on the device of z; None for torch's default.
            sync: ``global`` or ``local`` for this call; None for the setting of the loss.

        Returns:
            The loss as ``value``, and the numbers of samples and pairs.

        Raises:
            TypeError: If ``z`` is not floating point or labels or instances are not integers.
            ValueError: If a shape or the generator's device does not fit, or a draw without replacement has too few.

        Example:
            >>> result = ContrastiveLoss().compute(torch.eye(4), torch.tensor([0, 0, 1, 2]))
            >>> result.num_pairs, result.batch_size
            (2, 4)
        """
        with torch.autocast(z.device.type, enabled=False):
            batch = self._prepare(z, labels, instances, sync=sync)
            tau = self.tau
            check_number("temperature", tau, above=0)
            order = sort_batch(batch.ids, self.negatives, self.include_self, batch.past_ids, batch.classes)
            if order is None:
                return LossResult(self._nothing(batch.z), 0, len(batch.ids), batch.shares)
            tiled = self._is_tiled(batch.past)
            value = self._tiled(batch, order, tau) if tiled else self._by_autograd(batch, order, generator)
            return LossResult(value, order.num_pairs, len(batch.ids), batch.shares, order.class_sizes())

    def _tiled(self, batch: LossBatch, order: SortedBatch, tau: float) -> Tensor:
        beta, hardening = (self.beta, None) if type(self.hardening) is Exponential else (0.0, self.hardening)
        infonce = InfoNCETerms(self.link, beta, tau, self.differentiate_weights, hardening)  # type: ignore[arg-type]
        return tiled_loss(batch.z, order, infonce, self.normalization, batch.past, self.temperature, batch.shares)

    def _by_autograd(self, batch: LossBatch, order: SortedBatch, generator: torch.Generator | None) -> Tensor:
        z, ids, classes, past, past_id, shares = batch
        own = slice(0, len(ids)) if shares is None else shares.own
        if self.num_negatives is None:
            draws, blocks = None, blocks_of_anchors(z, order, own, self.link)
        else:
            draws = Draws(self.num_negatives, self.replacement, not self.training, self.share_draws)
            blocks = draws.blocks_of_anchors(z, order, own, generator)

        def estimate(similarity: Tensor, rows: slice, uniform: Tensor | None, tau: float | Tensor) -> Tensor:
            pairs = label_pairs(ids, self.negatives, self.include_self, past_id, rows, classes)
            problem = (similarity, pairs, order.pairs(rows), self.link, self.hardening, tau)
            if draws is None or uniform is None:
                return general_loss(*problem, self.differentiate_weights, self.tau_plus)
            return sampled_loss(*problem, draws, uniform, self.tau_plus)

        part = partial(sum_over_anchors, blocks=blocks, estimate=estimate, past=past)
        z, temperature = normalize(z, self.normalization), self.temperature
        total = part(z, temperature) if shares is None else sum_over_processes(z, temperature, shares, part)
        return total / order.num_pairs

    def _is_tiled(self, past: Tensor | None) -> bool:
        """Check whether the exact engines support this loss, which need no autograd graph."""
        is_custom = self.differentiate_weights and type(self.hardening) is not Exponential
        if self.num_negatives is not None or self.tau_plus > 0 or is_custom or not isinstance(self.link, InfoNCE):
            return False
        learns = isinstance(self.temperature, Tensor) and self.temperature.requires_grad
        return not learns or (past is None and not (self.differentiate_weights and self.beta > 0))

    def _prepare(
        self,
        z: Tensor,
        labels: Tensor,
        instances: Tensor | None,
        shares: Shares | None = None,
        sync: Sync | None = None,
    ) -> LossBatch:
        check_features(z)
        check_labels(labels, len(z))
        if instances is not None:
            check_labels(instances, len(z), name="instances")
        z = normalize(z, "none")
        shares = (shares or share_rows(z)) if (sync or self.sync) == "global" else None
        instances = instances if shares is None else shares.number(instances, labels.device)
        ids = sample_ids(labels, instances, self.positives, self.negatives).to(z.device)
        ids, *classes = (ids if shares is None else shares.gather(ids)).unbind(1)
        own = (z, ids, classes[0] if classes else None)
        if not self.queue:
            return LossBatch(*own, None, None, shares)
        past, past_labels = self.queue.on_device_of(z)
        past = normalize(past, self.normalization)
        return LossBatch(*own, past, past_ids(past_labels, self.positives, self.negatives).to(ids), shares)

    def _nothing(self, z: Tensor) -> Tensor:
        if self.training and not self._warned:
            self._warned = True
            warnings.warn(
                "a batch holds no anchor with both a positive and a negative, so its loss is 0: "
                "use class-balanced batches, larger batches, or two views of each image",
                stacklevel=4,
            )
        # DistributedDataParallel waits for every gradient, so features and temperature get zeros.
        return z.sum() * 0.0 + 0.0 * self.temperature

    def whole_batch(self, z: Tensor, labels: Tensor, shares: Shares | None = None) -> tuple[Tensor, Tensor]:
        """Return the features (N, d), detached, and labels (N,) of the global batch."""
        labels, shares = labels.to(z.device), (shares or share_rows(z)) if self.sync == "global" else None
        return (z.detach(), labels) if shares is None else (shares.gather(z), shares.gather(labels))

    @torch.no_grad()
    def negative_statistics(
        self,
        z: Tensor,
        labels: Tensor,
        instances: Tensor | None = None,
        max_anchors: int | None = None,
        shares: Shares | None = None,
    ) -> dict[str, Tensor]:
        """Measure how the hardness weights the negatives of a batch.

        Args:
            z: Features (N, d).
            labels: Classes (N,), as in `compute`.
            instances: Sample ids (N,), as in `compute`.
            max_anchors: Approximate number of anchors to use, evenly spread; None for all.
            shares: Shard sizes from the `LossResult` of this batch, which saves a collective; None to gather them.

        Returns:
            Means over the usable anchors of the global batch, NaN if there are none: ``effective``, the effective
            number of negatives; ``fraction``, that number over the number of negatives; and, for ``all`` negatives,
            ``false_share``, the weight on negatives of the anchor's own class.
        """
        with torch.autocast(z.device.type, enabled=False):
            z, ids, classes, past, past_id, shares = self._prepare(z, labels, instances, shares)
            z = normalize(z if shares is None else shares.gather(z), self.normalization)
            which: dict[str, Any] = {"negatives": self.negatives, "include_self": self.include_self, "past": past}
            which |= {"past_id": past_id, "classes": classes, "max_anchors": max_anchors}
            return negative_statistics(z, ids, self.hardening, **which)

    def extra_repr(self) -> str:
        """Show the arguments."""
        return (
            f"negatives={self.negatives!r}, hardening={self.hardening!r}, temperature={self.tau:g}, "
            f"num_negatives={self.num_negatives}, normalization={self.normalization!r}, link={self.link!r}"
        )
