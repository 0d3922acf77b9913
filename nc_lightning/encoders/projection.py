"""The paper's projector."""

from torch import nn

from nc_lightning.checks import check_count
from nc_lightning.encoders.base import Projector


class ProjectionHead(nn.Sequential, Projector):
    """The paper's projector: Linear, BatchNorm, ReLU, Linear.

    Args:
        in_features: Width of the encoder's features h.
        out_features: Dimension d of the projections.
        hidden_features: Width of the hidden layer; 512 in the paper.

    Shape:
        (N, in_features) -> (N, out_features)

    Raises:
        ValueError: If a size is below 1.

    Source:
        arXiv 2311.05139 and its public code: a projector 2048-512-(C - 1) on a ResNet-50.

    Example:
        >>> import torch
        >>> ProjectionHead(16, 9)(torch.zeros(2, 16)).shape
        torch.Size([2, 9])
    """

    def __init__(self, in_features: int, out_features: int, hidden_features: int = 512) -> None:
        for name, size in (("in", in_features), ("out", out_features), ("hidden", hidden_features)):
            check_count(f"{name}_features", size)
        super().__init__(
            nn.Linear(in_features, hidden_features, bias=False),
            nn.BatchNorm1d(hidden_features),
            nn.ReLU(inplace=True),
            nn.Linear(hidden_features, out_features),
        )
