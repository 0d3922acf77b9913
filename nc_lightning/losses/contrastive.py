"""The contrastive loss as a module, of which SCL, HSCL, UCL and HUCL are uses with their negatives and hardness."""

import warnings
from typing import Any

import torch
from torch import Tensor

from nc_lightning.checks import check_choice, check_count, check_features, check_fraction, check_labels, check_number
from nc_lightning.distributed.global_batch import Shares, Sync, share_rows
from nc_lightning.geometry import Normalization, normalize
from nc_lightning.losses.diagnostics import negative_statistics
from nc_lightning.losses.engines.autograd import general_loss
from nc_lightning.losses.engines.infonce_terms import InfoNCETerms
from nc_lightning.losses.engines.known_gradient import sum_over_processes
from nc_lightning.losses.engines.sampled import sampled_loss
from nc_lightning.losses.engines.sorted_batch import SortedBatch, sort_batch
from nc_lightning.losses.engines.tiled import tiled_loss
from nc_lightning.losses.engines.tiled_distributed import tiled_distributed_loss
from nc_lightning.losses.hardening import Exponential, Hardening
from nc_lightning.losses.links import InfoNCE, Link
from nc_lightning.losses.loss_batch import LossBatch, LossResult
from nc_lightning.losses.pairs import Negatives, Positives, label_pairs, past_ids, positive_ids
from nc_lightning.losses.queue import FeatureQueue
from nc_lightning.losses.scheduled_beta import ScheduledBeta
from nc_lightning.losses.theory import TheoreticalValues


class ContrastiveLoss(TheoreticalValues, ScheduledBeta):
    """Contrastive loss with hardened negatives; `SCLLoss`, `HSCLLoss`, `UCLLoss` and `HUCLLoss` name its four uses.

    For an anchor i, a positive j and negatives n with inner products s of the normalized features:

        loss_ij = psi({t_n}, {w_n}),   t_n = (s_in - s_ij) / temperature,   w_n ~ eta(s_in), summing to 1 over n

    averaged over all (anchor, positive) pairs of the batch; with the usual link and hardening that is
    log(1 + sum_n w_n e^{t_n}) with w_n ~ e^{beta s_in}. Which samples are positives and negatives is said at
    `nc_lightning.losses.pairs.label_pairs`. ``beta`` acts on the similarity, ``temperature`` on the loss. An anchor
    without a positive or without a negative contributes nothing; a batch without any usable pair gives 0 with a
    gradient of zeros, and one warning. Computed in float32 or better with autocast off, in log space.

    Args:
        negatives: ``other_classes`` (supervised) or ``all`` other samples whatever their label (unsupervised).
        beta: Hardness >= 0; 0 weighs all negatives alike. May be set between calls; the one that a schedule sets
            (`HardNegativeSampler`) is part of ``state_dict``.
        temperature: tau > 0, the only scale there is; a `torch.nn.Parameter` of shape () to learn it.
        num_negatives: None for the exact expectation over the batch's negatives; k to draw k negatives for every pair,
            as the paper's code does with k = 256.
        normalization: ``unit_ball``, ``unit_sphere`` or ``none``; idempotent, so the model may normalize as well.
        differentiate_weights: Whether gradients flow through the weights; the paper's do not.
        include_self: Count an anchor as its own positive (and negative, among ``all``), as the paper's code does.
        link: psi, of `nc_lightning.losses.links`; None for InfoNCE in its mean form.
        hardening: eta, of `nc_lightning.losses.hardening`, which replaces ``beta``; None for the exponential one.
        positives: By ``label``, or by ``view``: then only views of the same sample are each other's positives, and all
            others are of other classes.
        tau_plus: Probability in [0, 1) that a negative is of the anchor's class, taken out of the mean (debiasing); for
            unsupervised InfoNCE only.
        replacement: Whether a negative may be drawn more than once for a pair. Without it, a training batch must hold
            ``num_negatives`` negatives of every anchor; in eval mode, a smaller one draws as many as there are.
        share_draws: Draw once for each anchor instead of once for each of its positives.
        sync: Where torch.distributed is up, ``global`` is the loss of the batches of all processes together, for
            DistributedDataParallel: each process has its value, and the averaged gradients are those of one process
            with the whole batch. All processes have to call it, with the views of a sample on one of them. ``local``
            is of each process's own batch.

    Attributes:
        queue: Past features that are negatives as well, or None; set between calls, as `HardNegativeSampler` does.

    Shape:
        ``z`` (N, d) floating point, ``labels`` (N,) integers, negative where unknown, ``instances`` (N,) integers;
        returns a 0-dimensional tensor, in nats, in [0, inf). At neural collapse with balanced classes it equals
        `lower_bound`; with all features equal, `collapsed_value`.

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
        differentiate_weights: bool = False,
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
        if tau_plus > 0 and (negatives != "all" or not isinstance(link, InfoNCE)):
            raise ValueError(
                f"tau_plus: got {tau_plus!r}, expected 0 but for unsupervised InfoNCE: where labels decide, no "
                "negative is of the anchor's class"
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
        self.differentiate_weights = differentiate_weights
        self.include_self = include_self
        self.sync = sync
        self.queue: FeatureQueue | None = None
        self._warned = False

    def forward(
        self, z: Tensor, labels: Tensor, instances: Tensor | None = None, generator: torch.Generator | None = None
    ) -> Tensor:
        """Compute the loss of a batch, the value of `compute`."""
        return self.compute(z, labels, instances, generator).value

    def compute(
        self,
        z: Tensor,
        labels: Tensor,
        instances: Tensor | None = None,
        generator: torch.Generator | None = None,
        sync: Sync | None = None,
    ) -> LossResult:
        """Compute the loss of a batch, and return what it was computed of as well.

        Args:
            z: Features (N, d).
            labels: (N,) integers; a negative one is unknown: such a sample is positive to its own views only.
            instances: (N,) integers, equal for views of the same sample; None if every row is a sample of its own.
            generator: Source of drawn negatives, on the device of z; None for torch's own.
            sync: ``global`` or ``local`` for this call; None for that of the loss.

        Returns:
            The loss as ``value``, with the numbers of samples and of pairs.

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
            order = sort_batch(batch.ids, self.negatives, self.include_self, batch.past_ids)
            if order is None:
                value = self._nothing(batch.z)
            elif self._is_tiled(batch.past):
                value = self._tiled(batch, order, tau)
            else:
                value = self._by_autograd(batch, order, generator)
            return LossResult(value, 0 if order is None else order.num_pairs, len(batch.ids), batch.shares)

    def _tiled(self, batch: LossBatch, order: SortedBatch, tau: float) -> Tensor:
        infonce = InfoNCETerms(self.link, self.beta, tau, self.differentiate_weights)  # type: ignore[arg-type]
        options = (infonce, self.normalization, batch.past)
        learnable = self.temperature if isinstance(self.temperature, Tensor) else None
        if batch.shares is None:
            return tiled_loss(batch.z, order, *options, learnable)
        return tiled_distributed_loss(batch.z, order, batch.shares, *options, learnable)

    def _by_autograd(self, batch: LossBatch, order: SortedBatch, generator: torch.Generator | None) -> Tensor:
        z, ids, past, past_id, shares = batch

        def part(z: Tensor, temperature: float | Tensor) -> Tensor:
            rows = slice(0, len(z)) if shares is None else shares.own
            pairs = label_pairs(ids, self.negatives, self.include_self, past_id, rows)
            problem = (z, pairs, order.pairs(rows), self.link, self.hardening, temperature)
            if self.num_negatives is None:
                return general_loss(*problem, self.differentiate_weights, self.tau_plus, past, rows)
            draws = (self.num_negatives, order.pairs_per_sample(), self.replacement, not self.training)
            return sampled_loss(*problem, *draws, self.share_draws, generator, self.tau_plus, past, rows)

        z, temperature = normalize(z, self.normalization), self.temperature
        total = part(z, temperature) if shares is None else sum_over_processes(z, temperature, shares, part)
        return total / order.num_pairs

    def _is_tiled(self, past: Tensor | None) -> bool:
        """Tell whether there is an engine for this loss that does not hold its graph."""
        if self.num_negatives is not None or self.tau_plus > 0 or type(self.hardening) is not Exponential:
            return False
        learns = isinstance(self.temperature, Tensor) and self.temperature.requires_grad
        if learns and (self.differentiate_weights or past is not None):
            return False
        return isinstance(self.link, InfoNCE) and self.link.alpha > 0

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
        ids = positive_ids(labels, instances, self.positives).to(z.device, torch.int64)
        ids = ids if shares is None else shares.gather(ids)
        if not self.queue:
            return LossBatch(z, ids, None, None, shares)
        features, past_labels = self.queue.on_device_of(z)
        past = normalize(features, self.normalization)
        return LossBatch(z, ids, past, past_ids(past_labels, self.positives).to(ids), shares)

    def _nothing(self, z: Tensor) -> Tensor:
        if self.training and not self._warned:
            self._warned = True
            warnings.warn(
                "a batch holds no anchor with both a positive and a negative, so its loss is 0: "
                "use class-balanced batches, larger batches, or two views of each image",
                stacklevel=4,
            )
        # All that has a gradient otherwise has one of zeros, which DistributedDataParallel waits for.
        return z.sum() * 0.0 + 0.0 * self.temperature

    def whole_batch(self, z: Tensor, labels: Tensor, shares: Shares | None = None) -> tuple[Tensor, Tensor]:
        """Return the features (N, d), without gradient, and labels (N,) of all processes; for shares see below."""
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
        """Describe what the hardness does to the negatives of a batch.

        Args:
            z: Features (N, d).
            labels: (N,), as in `compute`.
            instances: (N,), as in `compute`.
            max_anchors: About how many anchors to look at, evenly spread; None for all.
            shares: Those of the `LossResult` of the same batch, so that processes need not ask again; None to ask.

        Returns:
            Means over the usable anchors of the whole batch, NaN if there is none: ``effective``, the effective number
            of negatives, ``fraction``, its share of the negatives, and among ``all`` negatives ``false_share``, see
            `nc_lightning.losses.diagnostics`.
        """
        with torch.autocast(z.device.type, enabled=False):
            z, ids, past, past_id, shares = self._prepare(z, labels, instances, shares)
            z = normalize(z if shares is None else shares.gather(z), self.normalization)
            which: dict[str, Any] = {"negatives": self.negatives, "include_self": self.include_self, "past": past}
            return negative_statistics(z, ids, self.hardening, past_id=past_id, max_anchors=max_anchors, **which)

    def extra_repr(self) -> str:
        """Show the arguments."""
        return (
            f"negatives={self.negatives!r}, hardening={self.hardening!r}, temperature={self.tau:g}, "
            f"num_negatives={self.num_negatives}, normalization={self.normalization!r}, link={self.link!r}"
        )
