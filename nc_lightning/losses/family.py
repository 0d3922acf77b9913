"""The four losses: negatives of other classes (SCL, HSCL) or all other samples (UCL, HUCL), hardened or not."""

from nc_lightning.losses.contrastive import ContrastiveLoss
from nc_lightning.losses.options import EveryLossOption
from nc_lightning.options import SignatureWithOptions, Unpack


class SCLLoss(ContrastiveLoss):
    """Supervised contrastive loss: negatives are samples of other classes, equally weighted.

    See `ContrastiveLoss` for the arguments.

    Example:
        >>> import torch
        >>> SCLLoss()(torch.tensor([[1.0, 0.0], [1.0, 0.0], [-1.0, 0.0]]), torch.tensor([0, 0, 1]))
        tensor(0.1269)
    """

    __signature__ = SignatureWithOptions()

    def __init__(self, temperature: float = 1.0, **options: Unpack[EveryLossOption]) -> None:
        super().__init__("other_classes", 0.0, temperature, **options)


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

    __signature__ = SignatureWithOptions()

    def __init__(self, beta: float = 5.0, temperature: float = 1.0, **options: Unpack[EveryLossOption]) -> None:
        super().__init__("other_classes", beta, temperature, **options)


class UCLLoss(ContrastiveLoss):
    """Unsupervised contrastive loss: every other sample is a negative, equally weighted.

    Labels only determine the positives: samples of the same class, as in the paper's experiments, or views of the same
    image if each image has a unique label. See `ContrastiveLoss` for the arguments.

    Example:
        >>> import torch
        >>> UCLLoss()(torch.tensor([[1.0, 0.0], [1.0, 0.0], [-1.0, 0.0]]), torch.tensor([0, 0, 1]))
        tensor(0.4496)
    """

    __signature__ = SignatureWithOptions()

    def __init__(self, temperature: float = 1.0, **options: Unpack[EveryLossOption]) -> None:
        super().__init__("all", 0.0, temperature, **options)


class HUCLLoss(ContrastiveLoss):
    """Hard unsupervised contrastive loss: every other sample is a negative, similar ones weighted more.

    Gradients flow through the weights of all negatives, unless ``differentiate_weights=False`` as in the paper's code.
    Never below `UCLLoss`, and equal to it for ``beta=0``. Neural collapse is its minimum up to a critical hardness, see
    `nc_lightning.geometry.hucl_critical_beta`. See `ContrastiveLoss` for the arguments.

    Example:
        >>> import torch
        >>> z, labels = torch.eye(4), torch.tensor([0, 0, 1, 1])
        >>> bool(HUCLLoss(beta=2.0)(z, labels) >= UCLLoss()(z, labels))
        True
    """

    __signature__ = SignatureWithOptions()

    def __init__(self, beta: float = 5.0, temperature: float = 1.0, **options: Unpack[EveryLossOption]) -> None:
        super().__init__("all", beta, temperature, **options)
