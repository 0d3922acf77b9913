"""The four losses: negatives of other classes (SCL, HSCL) or all other samples (UCL, HUCL), hardened or not."""

from inspect import Parameter, Signature, signature
from typing import Any, TypeVar

from nc_lightning.losses.contrastive import ContrastiveLoss

Loss = TypeVar("Loss", bound=type[ContrastiveLoss])


def _with_options(loss: Loss) -> Loss:
    """Replace ``**options`` in the signature of a loss by the arguments of `ContrastiveLoss` after the temperature."""
    *own, _ = signature(loss.__init__).parameters.values()
    options = [*signature(ContrastiveLoss).parameters.values()]
    after = [option.name for option in options].index("temperature") + 1
    explicit = [*own, *(option.replace(kind=Parameter.KEYWORD_ONLY) for option in options[after:])]
    loss.__init__.__signature__ = Signature(explicit)  # type: ignore[attr-defined]
    return loss


@_with_options
class SCLLoss(ContrastiveLoss):
    """Supervised contrastive loss: negatives are samples of other classes, equally weighted.

    See `ContrastiveLoss` for the arguments.

    Example:
        >>> import torch
        >>> SCLLoss()(torch.tensor([[1.0, 0.0], [1.0, 0.0], [-1.0, 0.0]]), torch.tensor([0, 0, 1]))
        tensor(0.1269)
    """

    def __init__(self, temperature: float = 1.0, **options: Any) -> None:
        super().__init__("other_classes", 0.0, temperature, **options)


@_with_options
class HSCLLoss(ContrastiveLoss):
    """Hard supervised contrastive loss: negatives are samples of other classes, similar ones weighted more.

    Never below `SCLLoss`, and equal to it at neural collapse and for ``beta=0``. See `ContrastiveLoss` for the
    arguments.

    Example:
        >>> import torch
        >>> z, labels = torch.eye(4), torch.tensor([0, 0, 1, 1])
        >>> bool(HSCLLoss(beta=0)(z, labels) == SCLLoss()(z, labels))
        True
    """

    def __init__(self, beta: float = 5.0, temperature: float = 1.0, **options: Any) -> None:
        super().__init__("other_classes", beta, temperature, **options)


@_with_options
class UCLLoss(ContrastiveLoss):
    """Unsupervised contrastive loss: every other sample is a negative, equally weighted.

    Labels only determine the positives: samples of the same class, as in the paper's experiments, or views of the same
    image if each image has a unique label. See `ContrastiveLoss` for the arguments.

    Example:
        >>> import torch
        >>> UCLLoss()(torch.tensor([[1.0, 0.0], [1.0, 0.0], [-1.0, 0.0]]), torch.tensor([0, 0, 1]))
        tensor(0.4496)
    """

    def __init__(self, temperature: float = 1.0, **options: Any) -> None:
        super().__init__("all", 0.0, temperature, **options)


@_with_options
class HUCLLoss(ContrastiveLoss):
    """Hard unsupervised contrastive loss: every other sample is a negative, similar ones weighted more.

    Never below `UCLLoss`, and equal to it for ``beta=0``. Neural collapse is not its minimum, because hardness favors
    negatives of the anchor's own class. See `ContrastiveLoss` for the arguments.

    Example:
        >>> import torch
        >>> z, labels = torch.eye(4), torch.tensor([0, 0, 1, 1])
        >>> bool(HUCLLoss(beta=2.0)(z, labels) >= UCLLoss()(z, labels))
        True
    """

    def __init__(self, beta: float = 5.0, temperature: float = 1.0, **options: Any) -> None:
        super().__init__("all", beta, temperature, **options)
