"""UCL: unsupervised contrastive learning."""

from typing import Any

from nc_lightning.distributed.global_batch import Sync
from nc_lightning.geometry import Normalization
from nc_lightning.losses import Link, UCLLoss
from nc_lightning.losses.pairs import Positives
from nc_lightning.objectives.base import ContrastiveObjective


class UCL(ContrastiveObjective):
    """Unsupervised contrastive learning: every other sample is a negative whatever its class, all weighing alike.

    Labels only name the positives: samples of one class as in the paper, or views of one image if each image has a
    label of its own. With positives by class, neural collapse minimises it (arXiv 2311.05139).

    Args:
        temperature: tau > 0 of the loss.
        num_negatives: None for the exact loss, k to draw k negatives for every pair.
        normalization: ``unit_ball``, ``unit_sphere`` or ``none``.
        include_self: Count an anchor as its own positive and negative, as the paper's code does.
        link: psi; None for InfoNCE in its mean form.
        positives: By ``label``, or by ``view``.
        replacement: Whether a negative may be drawn more than once for a pair.
        share_draws: Draw once for each anchor instead of once for each of its positives.
        tau_plus: Probability that a negative is of the anchor's class, taken out of the mean (debiasing).
        sync: ``global`` for the loss of the batches of all processes together, ``local`` for each process's own.
        **kwargs: ``encoder``, ``num_classes`` and the other arguments of `ContrastiveObjective`.

    Example:
        >>> from nc_lightning.encoders import MLP
        >>> UCL(encoder=MLP((1, 8, 8)), num_classes=10).feature_dim
        9
    """

    def __init__(
        self,
        temperature: float = 1.0,
        num_negatives: int | None = None,
        normalization: Normalization = "unit_ball",
        include_self: bool = False,
        link: Link | None = None,
        positives: Positives = "label",
        replacement: bool = True,
        share_draws: bool = False,
        tau_plus: float = 0.0,
        sync: Sync = "global",
        **kwargs: Any,
    ) -> None:
        loss = UCLLoss(
            temperature=temperature,
            num_negatives=num_negatives,
            normalization=normalization,
            include_self=include_self,
            link=link,
            positives=positives,
            replacement=replacement,
            share_draws=share_draws,
            tau_plus=tau_plus,
            sync=sync,
        )
        super().__init__(loss=loss, **kwargs)
