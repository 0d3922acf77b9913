"""HSCL: hard supervised contrastive learning."""

from typing import Any

from lightning.pytorch import Callback

from nc_lightning.geometry import Normalization
from nc_lightning.losses import HSCLLoss
from nc_lightning.objectives.base import ContrastiveObjective


class HSCL(ContrastiveObjective):
    """Hard supervised contrastive learning: negatives of other classes, the similar ones weighing more.

    Never below SCL and equal to it at neural collapse, which minimises both; on the unit ball or sphere training gets
    there (arXiv 2311.05139). Brings its `HardNegativeSampler` along, unless the Trainer already has one.

    Args:
        beta: Hardness >= 0 of the weights e^{beta s}; 0 is exactly SCL.
        temperature: tau > 0 of the loss.
        num_negatives: None for the exact loss, k to draw k negatives for every pair.
        normalization: ``unit_ball``, ``unit_sphere`` or ``none``.
        differentiate_weights: Whether gradients flow through the weights.
        include_self: Count an anchor as its own positive, as the paper's code does.
        **kwargs: ``encoder``, ``num_classes`` and the other arguments of `ContrastiveObjective`.

    Example:
        >>> from nc_lightning.encoders import MLP
        >>> HSCL(beta=5.0, encoder=MLP((1, 8, 8)), num_classes=10).loss.beta
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
        **kwargs: Any,
    ) -> None:
        loss = HSCLLoss(beta, temperature, num_negatives, normalization, differentiate_weights, include_self)
        super().__init__(loss=loss, **kwargs)

    def configure_callbacks(self) -> list[Callback]:
        """Bring the sampler of hard negatives along."""
        # Callbacks stand a floor above; only Lightning asks for this one, when it is all there.
        from nc_lightning.callbacks.hard_negative_sampler import HardNegativeSampler

        return HardNegativeSampler.unless_present(self)
