"""The encoder of a run with its preprocessing, as one module of plain torch."""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from nc_lightning.data.preprocess import Preprocess
from nc_lightning.io.atomic import short_path
from nc_lightning.io.checkpoints import read_checkpoint
from nc_lightning.runs import find_run, load_data, load_module
from nc_lightning.runs.loading import without_download


class StandardizedEncoder(nn.Module):
    """Map images in [0, 1] to features of an encoder, standardized as in its training.

    Args:
        encoder: Module that maps inputs to features h (N, d).
        mean: Mean (channels,) of the training images in [0, 1]; None if training did not standardize.
        std: Standard deviation (channels,) of the training images; None with the mean.

    Shape:
        (N, channels, height, width) float in [0, 1] -> (N, d); without a mean, the encoder's own inputs

    Example:
        >>> encoder = StandardizedEncoder(nn.Flatten(), torch.tensor([0.5]), torch.tensor([0.25]))
        >>> encoder(torch.full((1, 1, 1, 2), 0.75))
        tensor([[1., 1.]])
    """

    mean: Tensor | None
    std: Tensor | None

    def __init__(self, encoder: nn.Module, mean: Tensor | None = None, std: Tensor | None = None) -> None:
        super().__init__()
        self.encoder = encoder
        for name, value in (("mean", mean), ("std", std)):
            self.register_buffer(name, None if value is None else value.view(-1, 1, 1), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """Standardize and encode a batch."""
        if self.mean is not None and self.std is not None:
            x = (x - self.mean) / self.std
        features: Tensor = self.encoder(x)
        return features


@dataclass(frozen=True)
class TrainedEncoder:
    """Encoder of a run, and what is known about it.

    Attributes:
        encoder: Encoder in float32 and eval mode, on the CPU.
        preprocess: Preprocessing of its images.
        input_shape: Shape of one input; None if neither the encoder's settings nor the data have it.
        settings: Class path and arguments of the encoder, ``{"class_path": ..., "init_args": {...}}``.
        objective: Name of the objective that trained it.
        epoch: Number of epochs that it was trained.
        folder: Folder of the run.
        config: Path of the run's configuration, or None.
    """

    encoder: nn.Module
    preprocess: Preprocess
    input_shape: tuple[int, ...] | None
    settings: dict[str, Any]
    objective: str
    epoch: int
    folder: Path
    config: Path | None

    def standardized(self) -> StandardizedEncoder:
        """Return the encoder with its preprocessing, in eval mode."""
        return StandardizedEncoder(self.encoder, self.preprocess.mean, self.preprocess.std).eval()


def trained_encoder(run: str | os.PathLike[str]) -> TrainedEncoder:
    """Load the encoder of a run.

    Raises:
        FileNotFoundError: If there is no such run, or it has no checkpoint.
        ValueError: If the checkpoint cannot be loaded, see `nc_lightning.load`, or the module has no encoder.
    """
    path, config = find_run(run)
    module, checkpoint = load_module(path), read_checkpoint(path)
    encoder, preprocess = getattr(module, "encoder", None), getattr(module, "preprocess", None)
    if not isinstance(encoder, nn.Module) or not isinstance(preprocess, Preprocess):
        raise ValueError(f"run: got one of {type(module).__name__}, expected an objective of nc_lightning")
    if "epoch" not in checkpoint:
        raise ValueError(f"run: got {short_path(path)!r}, which has no epoch, expected a checkpoint of nc-train")
    settings = without_download(checkpoint["hyper_parameters"].get("encoder"))
    settings = dict(settings) if isinstance(settings, Mapping) else {"class_path": str(settings)}
    given = Path(run).expanduser()
    return TrainedEncoder(
        # Files have float32 in torch's usual format, and nothing that needs a gradient.
        encoder.float().to(memory_format=torch.contiguous_format).requires_grad_(False),
        preprocess,
        _input_shape(settings, path),
        settings,
        str(checkpoint.get("objective", type(module).__name__)),
        checkpoint["epoch"] + 1,
        config.parent if config else given if given.is_dir() else path.parent,
        config,
    )


def _input_shape(settings: Mapping[str, Any], checkpoint: Path) -> tuple[int, ...] | None:
    shape = (settings.get("init_args") or {}).get("input_shape")
    if shape is None:
        try:
            shape = getattr(load_data(checkpoint), "input_shape", None)
        except (ValueError, ImportError):  # the data are elsewhere; only some formats need the shape
            return None
    return None if shape is None else tuple(shape)
