"""HUCL: hard unsupervised contrastive learning."""

from typing import Any

from lightning.pytorch import Callback

from nc_lightning.distributed.global_batch import Sync
from nc_lightning.geometry import Normalization
from nc_lightning.losses import Hardening, HUCLLoss, Link
from nc_lightning.losses.pairs import Positives
from nc_lightning.objectives.base import ContrastiveObjective


class HUCL(ContrastiveObjective):
    """Hard unsupervised contrastive learning: every other sample is a negative, the similar ones weighing more.

    Never below UCL. Neural collapse is not its minimum: hardness also finds the negatives of the anchor's own class,
    whose share of the weight is logged as ``negatives/false_share``; too much of it collapses training
    (arXiv 2311.05139). Brings its `HardNegativeSampler` along, unless the Trainer already has one.

    Args:
        beta: Hardness >= 0 of the weights e^{beta s}; 0 is exactly UCL.
        temperature: tau > 0 of the loss.
        num_negatives: None for the exact loss, k to draw k negatives for every pair.
        normalization: ``unit_ball``, ``unit_sphere`` or ``none``.
        differentiate_weights: Whether gradients flow through the weights.
        include_self: Count an anchor as its own positive and negative, as the paper's code does.
        link: psi; None for InfoNCE in its mean form.
        positives: By ``label``, or by ``view``.
        replacement: Whether a negative may be drawn more than once for a pair.
        share_draws: Draw once for each anchor instead of once for each of its positives.
        hardening: eta; None for the exponential one with ``beta``.
        tau_plus: Probability that a negative is of the anchor's class, taken out of the mean (debiasing).
        sync: ``global`` for the loss of the batches of all processes together, ``local`` for each process's own.
        **kwargs: ``encoder``, ``num_classes`` and the other arguments of `ContrastiveObjective`.

    Example:
        >>> from nc_lightning.encoders import MLP
        >>> HUCL(beta=5.0, encoder=MLP((1, 8, 8)), num_classes=10).loss.beta
        5.0
    """

    def __init__(
        self,
        beta: float = 5.0,
        temperature: float = 1.0,
        num_negatives: int | None = None,
        normalization: Normalization = "unit_ball",
        differentiate_weights: bool = False,
        include_self: bool = False,
        link: Link | None = None,
        positives: Positives = "label",
        replacement: bool = True,
        share_draws: bool = False,
        hardening: Hardening | None = None,
        tau_plus: float = 0.0,
        sync: Sync = "global",
        **kwargs: Any,
    ) -> None:
        loss = HUCLLoss(
            beta=beta,
            temperature=temperature,
            num_negatives=num_negatives,
            normalization=normalization,
            differentiate_weights=differentiate_weights,
            include_self=include_self,
            link=link,
            positives=positives,
            replacement=replacement,
            share_draws=share_draws,
            hardening=hardening,
            tau_plus=tau_plus,
            sync=sync,
        )
        super().__init__(loss=loss, **kwargs)

    def configure_callbacks(self) -> list[Callback]:
        """Bring the sampler of hard negatives along."""
        # Callbacks stand a floor above; only Lightning asks for this one, when it is all there.
        from nc_lightning.callbacks.hard_negative_sampler import HardNegativeSampler
        from nc_lightning.callbacks.sources import unless_present

        return [*super().configure_callbacks(), *unless_present(HardNegativeSampler, self)]
