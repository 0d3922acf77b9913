"""UCL: unsupervised contrastive learning."""

from typing import Any

from nc_lightning.geometry import Normalization
from nc_lightning.losses import UCLLoss
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
        **kwargs: Any,
    ) -> None:
        super().__init__(loss=UCLLoss(temperature, num_negatives, normalization, include_self), **kwargs)
