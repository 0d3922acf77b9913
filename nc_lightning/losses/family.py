"""The four losses: negatives of other classes (SCL, HSCL) or all other samples (UCL, HUCL), hardened or not."""

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


class UCLLoss(ContrastiveLoss):
    """Unsupervised contrastive loss: every other sample is a negative, all weighing alike.

    Labels name the positives: of the same class as in the paper's experiments, or of the same image if each image has
    a label of its own. See `ContrastiveLoss`, also for the other ``options``.

    Example:
        >>> import torch
        >>> UCLLoss()(torch.tensor([[1.0, 0.0], [1.0, 0.0], [-1.0, 0.0]]), torch.tensor([0, 0, 1]))
        tensor(0.4496)
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
        super().__init__("all", 0.0, temperature, num_negatives, normalization, **options)


class HUCLLoss(ContrastiveLoss):
    """Hard unsupervised contrastive loss: every other sample is a negative, the similar ones weighing more.

    Never below `UCLLoss`, and equal to it for ``beta=0``; neural collapse is not its minimum, as hardness finds the
    negatives of the anchor's own class. See `ContrastiveLoss`, also for the
    other ``options``.

    Example:
        >>> import torch
        >>> z, labels = torch.eye(4), torch.tensor([0, 0, 1, 1])
        >>> bool(HUCLLoss(beta=2.0)(z, labels) >= UCLLoss()(z, labels))
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
        options |= {"differentiate_weights": differentiate_weights, "include_self": include_self}
        super().__init__("all", beta, temperature, num_negatives, normalization, **options)
