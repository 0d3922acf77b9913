"""The four objectives: supervised or unsupervised contrastive learning, with or without hard negatives."""

from collections.abc import Callable
from functools import partial

from lightning.pytorch import Callback

from nc_lightning.callbacks.hard_negative_sampler import HardNegativeSampler
from nc_lightning.callbacks.sources import unless_present
from nc_lightning.distributed.global_batch import Sync
from nc_lightning.geometry import Normalization
from nc_lightning.losses import ContrastiveLoss, Hardening, HSCLLoss, HUCLLoss, Link, SCLLoss, UCLLoss
from nc_lightning.losses.pairs import Positives
from nc_lightning.objectives.base import ContrastiveObjective
from nc_lightning.objectives.options import HardObjectiveOptions, ModuleOptions, ObjectiveOptions
from nc_lightning.options import Unpack


class _Objective(ContrastiveObjective):
    """Base of the four objectives, with the options that all losses share.

    Args:
        loss: Function that makes the loss from these options.
        temperature: Temperature tau > 0.
        num_negatives: Number k of negatives to draw for every pair; None for the exact loss.
        normalization: Normalization of the projections.
        include_self: Whether an anchor is its own positive (UCL: and negative).
        link: psi; None for InfoNCE in its mean form.
        positives: By ``label`` or by ``view``, see `ContrastiveLoss`.
        replacement: Whether to draw negatives with replacement.
        share_draws: Draw once per anchor instead of once per positive.
        sync: Loss over the batches of all processes (``global``) or of each one (``local``).
        **kwargs: ``encoder``, ``num_classes`` and the other arguments of `ContrastiveObjective`.
    """

    def __init__(
        self,
        loss: Callable[..., ContrastiveLoss],
        temperature: float = 1.0,
        num_negatives: int | None = None,
        normalization: Normalization = "unit_ball",
        include_self: bool = False,
        link: Link | None = None,
        positives: Positives = "label",
        replacement: bool = True,
        share_draws: bool = False,
        sync: Sync = "global",
        **kwargs: Unpack[ModuleOptions],
    ) -> None:
        loss = loss(
            temperature=temperature,
            num_negatives=num_negatives,
            normalization=normalization,
            include_self=include_self,
            link=link,
            positives=positives,
            replacement=replacement,
            share_draws=share_draws,
            sync=sync,
        )
        super().__init__(loss=loss, **kwargs)


class _HardObjective(_Objective):
    """Base of the two objectives with hard negatives, which add a `HardNegativeSampler` unless the Trainer has one.

    Args:
        loss: Function that makes the loss from its options.
        beta: Hardness >= 0 of the weights e^{beta s}; 0 weights all negatives equally.
        differentiate_weights: Let gradients flow through the weights.
        hardening: eta; None for `Exponential` with ``beta``.
        **kwargs: Options that all losses share, and the arguments of `ContrastiveObjective`.
    """

    def __init__(
        self,
        loss: Callable[..., ContrastiveLoss],
        beta: float = 5.0,
        differentiate_weights: bool | None = None,
        hardening: Hardening | None = None,
        **kwargs: Unpack[ObjectiveOptions],
    ) -> None:
        loss = partial(loss, beta=beta, differentiate_weights=differentiate_weights, hardening=hardening)
        super().__init__(loss=loss, **kwargs)

    def configure_callbacks(self) -> list[Callback]:
        """Add a `HardNegativeSampler` unless the Trainer has one."""
        return [*super().configure_callbacks(), *unless_present(HardNegativeSampler, self)]


class SCL(_Objective):
    """Supervised contrastive learning: negatives are samples of other classes, equally weighted.

    Neural collapse minimizes the loss, but without hard negatives training tends to end in dimensional collapse
    (arXiv 2311.05139).

    Args:
        **kwargs: Options of the loss, see `SCLLoss`, and the arguments of `ContrastiveObjective`.

    Example:
        >>> from nc_lightning.encoders import MLP
        >>> SCL(encoder=MLP((1, 8, 8)), num_classes=10).feature_dim
        9
    """

    def __init__(self, **kwargs: Unpack[ObjectiveOptions]) -> None:
        super().__init__(loss=SCLLoss, **kwargs)


class HSCL(_HardObjective):
    """Hard supervised contrastive learning: negatives are samples of other classes, similar ones weighted more.

    The loss is never below that of SCL, and equal to it for ``beta`` 0 and at neural collapse, which minimizes both;
    with features in the unit ball or on the unit sphere, training reaches neural collapse (arXiv 2311.05139).

    Args:
        **kwargs: Options of the loss, see `HSCLLoss`, and the arguments of `ContrastiveObjective`.

    Example:
        >>> from nc_lightning.encoders import MLP
        >>> HSCL(beta=5.0, encoder=MLP((1, 8, 8)), num_classes=10).loss.beta
        5.0
    """

    def __init__(self, **kwargs: Unpack[HardObjectiveOptions]) -> None:
        super().__init__(loss=HSCLLoss, **kwargs)


class UCL(_Objective):
    """Unsupervised contrastive learning: every other sample of any class is a negative, equally weighted.

    Labels only determine the positives: samples of the same class, as in the paper, or views of the same image if each
    image has a unique label. With positives by class, neural collapse minimizes the loss (arXiv 2311.05139).

    Args:
        tau_plus: Probability that a negative is of the anchor's class, for debiasing.
        **kwargs: Options of the loss, see `UCLLoss`, and the arguments of `ContrastiveObjective`.

    Example:
        >>> from nc_lightning.encoders import MLP
        >>> UCL(encoder=MLP((1, 8, 8)), num_classes=10).feature_dim
        9
    """

    def __init__(self, tau_plus: float = 0.0, **kwargs: Unpack[ObjectiveOptions]) -> None:
        super().__init__(loss=partial(UCLLoss, tau_plus=tau_plus), **kwargs)


class HUCL(_HardObjective):
    """Hard unsupervised contrastive learning: every other sample is a negative, similar ones weighted more.

    The loss is never below that of UCL, and equal to it for ``beta`` 0. Neural collapse is its minimum up to a critical
    hardness, see `nc_lightning.geometry.hucl_critical_beta`. Beyond it, too much weight is on negatives of the anchor's
    own class, whose share is logged as ``negatives/false_share``.

    Args:
        tau_plus: Probability that a negative is of the anchor's class, for debiasing.
        **kwargs: Options of the loss, see `HUCLLoss`, and the arguments of `ContrastiveObjective`.

    Example:
        >>> from nc_lightning.encoders import MLP
        >>> HUCL(beta=5.0, encoder=MLP((1, 8, 8)), num_classes=10).loss.beta
        5.0
    """

    def __init__(self, tau_plus: float = 0.0, **kwargs: Unpack[HardObjectiveOptions]) -> None:
        super().__init__(loss=partial(HUCLLoss, tau_plus=tau_plus), **kwargs)
