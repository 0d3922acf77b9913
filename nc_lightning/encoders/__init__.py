"""Encoders: small ones for the bundled data, ResNets, models of torchvision or timm; and the paper's projector.

An encoder is any module with an attribute ``out_features`` that maps inputs to features h (N, out_features). A
projector is made by ``projector(out_features, feature_dim)``, for example by `torch.nn.Linear`.
"""

from nc_lightning.encoders.base import Encoder, Projector
from nc_lightning.encoders.by_name import TimmEncoder, TorchvisionEncoder
from nc_lightning.encoders.projection import ProjectionHead
from nc_lightning.encoders.resnet import ResNet
from nc_lightning.encoders.small import MLP, SmallCNN
from nc_lightning.encoders.small_resnet import SmallResNet

__all__ = [
    "MLP",
    "Encoder",
    "ProjectionHead",
    "Projector",
    "ResNet",
    "SmallCNN",
    "SmallResNet",
    "TimmEncoder",
    "TorchvisionEncoder",
]
