"""Calls that type checkers refuse; mypy reports a comment that ignores an error which is not there."""

import torch

import nc_lightning
from nc_lightning import HSCL, UCL
from nc_lightning.data import CIFAR10DataModule, DigitsDataModule, ImageFolderDataModule
from nc_lightning.losses import HSCLLoss, SCLLoss
from nc_lightning.metrics import NC4, LiDAR, NeuralCollapse


def right(encoder: torch.nn.Module) -> None:
    HSCL(encoder=encoder, num_classes=10, beta=3.0, optimizer=torch.optim.SGD, projector=torch.nn.Linear(8, 9))
    UCL(encoder=encoder, num_classes=10, tau_plus=0.1, normalization="unit_sphere")
    HSCLLoss(beta=3.0, sync="local")
    NeuralCollapse(10, 9, dataset_size=50, sync_on_compute=False)
    ImageFolderDataModule("images", cache="none", views=2, batch_size=64)


def wrong(encoder: torch.nn.Module) -> None:
    nc_lightning.HSCLL(encoder=encoder, num_classes=10)  # type: ignore[attr-defined]
    nc_lightning.cli.start(["fit"])  # type: ignore[attr-defined]
    HSCL(encoder=encoder, num_classes=10, betta=3.0)  # type: ignore[call-arg]
    HSCL(encoder=encoder, num_classes="ten")  # type: ignore[arg-type]
    HSCL(encoder=encoder)  # type: ignore[call-arg]
    HSCL(encoder="resnet18", num_classes=10)  # type: ignore[arg-type]
    UCL(encoder=encoder, num_classes=10, beta=3.0)  # type: ignore[call-arg]
    UCL(encoder=encoder, num_classes=10, normalization="ball")  # type: ignore[arg-type]
    SCLLoss(beta=3.0)  # type: ignore[call-arg]
    HSCLLoss(sync="everywhere")  # type: ignore[arg-type]
    NeuralCollapse(10, 9, data_size=50)  # type: ignore[call-arg]
    NC4(10, 9, classifier=(torch.eye(9), None))  # type: ignore[call-arg]
    LiDAR(9, num_classes=10)  # type: ignore[call-arg]
    DigitsDataModule(viws=2)  # type: ignore[call-arg]
    CIFAR10DataModule(cache="none")  # type: ignore[arg-type]
    ImageFolderDataModule("images", class_=["cat", "dog"])  # type: ignore[call-arg]
