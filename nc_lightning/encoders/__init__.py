"""Encoders: small ones for the embedded data, ResNets, any model of torchvision or timm; and the paper's projector.

An encoder is any module that maps a batch of inputs to features h (N, out_features) and says its ``out_features``.
A projector is made by calling ``projector(out_features, feature_dim)``: `torch.nn.Linear` will do.
"""

from nc_lightning.encoders.base import Encoder, Projector
from nc_lightning.encoders.by_name import TimmEncoder, TorchvisionEncoder
from nc_lightning.encoders.projection import ProjectionHead
from nc_lightning.encoders.resnet import ResNet
from nc_lightning.encoders.small import MLP, SmallCNN

__all__ = ["MLP", "Encoder", "ProjectionHead", "Projector", "ResNet", "SmallCNN", "TimmEncoder", "TorchvisionEncoder"]
