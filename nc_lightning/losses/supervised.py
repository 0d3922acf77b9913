"""SCLLoss and HSCLLoss: samples of other classes are the negatives."""

from typing import Any

from nc_lightning.geometry import Normalization
from nc_lightning.losses.contrastive import ContrastiveLoss


class SCLLoss(ContrastiveLoss):
    """Supervised contrastive loss: negatives of other classes, all weighing alike.

    See `ContrastiveLoss`, also for the other ``options``.

    Example:
        >>> import torch
        >>> SCLLoss()(torch.tensor([[1.0, 0.0], [1.0, 0.0], [-1.0, 0.0]]), torch.tensor([0, 0, 1]))
        tensor(0.1269)
    """

    def __init__(
        self,
        temperature: float = 1.0,
        num_negatives: int | None = None,
        normalization: Normalization = "unit_ball",
        include_self: bool = False,
        **options: Any,
    ) -> None:
        options["include_self"] = include_self
        super().__init__("other_classes", 0.0, temperature, num_negatives, normalization, **options)


class HSCLLoss(ContrastiveLoss):
    """Hard supervised contrastive loss: negatives of other classes, the similar ones weighing more.

    Never below `SCLLoss`, and equal to it at neural collapse and for ``beta=0``. See `ContrastiveLoss`, also for the
    other ``options``.

    Example:
        >>> import torch
        >>> z, labels = torch.eye(4), torch.tensor([0, 0, 1, 1])
        >>> bool(HSCLLoss(beta=0)(z, labels) == SCLLoss()(z, labels))
        True
    """

    def __init__(
        self,
        beta: float = 5.0,
        temperature: float = 1.0,
        num_negatives: int | None = None,
        normalization: Normalization = "unit_ball",
        differentiate_weights: bool = False,
        include_self: bool = False,
        **options: Any,
    ) -> None:
        super().__init__(
            "other_classes",
            beta,
            temperature,
            num_negatives,
            normalization,
            differentiate_weights,
            include_self,
            **options,
        )
