"""What an encoder's inputs went through before it saw them, kept with its weights."""

from typing import Any

import torch
from lightning.pytorch import Trainer
from torch import Tensor, nn


class Preprocess(nn.Module):
    """Turn images into what an encoder was trained on: float in [0, 1], then standardised channel by channel.

    Mean and standard deviation are part of ``state_dict`` once they are known. They are no buffers, which DDP would
    broadcast in every step and checkpoints of before would lack.

    Attributes:
        mean: (channels,) mean of the training images in [0, 1]; None where training standardised nothing.
        std: (channels,) their standard deviation; None with the mean.

    Shape:
        (N, channels, ...) uint8 in [0, 255], or float in [0, 1] -> float32 or better

    Example:
        >>> preprocess = Preprocess()
        >>> preprocess.mean, preprocess.std = torch.tensor([0.5]), torch.tensor([0.25])
        >>> preprocess(torch.tensor([[[[0.75]]]])), preprocess(torch.tensor([[[[255]]]], dtype=torch.uint8))
        (tensor([[[[1.]]]]), tensor([[[[2.]]]]))
    """

    mean: Tensor | None
    std: Tensor | None

    def __init__(self) -> None:
        super().__init__()
        self.mean = None
        self.std = None

    def forward(self, x: Tensor) -> Tensor:
        """Scale and standardise a batch."""
        if not x.is_floating_point():
            x = x.float() / 255 if x.dtype == torch.uint8 else x.float()
        if self.mean is None or self.std is None:
            return x
        shape = (-1, *([1] * (x.ndim - 2)))
        return (x - self.mean.to(x).view(shape)) / self.std.to(x).view(shape)

    def take_from(self, data: Any) -> None:
        """Take the mean and the standard deviation of a data module; what has none says nothing of them."""
        mean, std = getattr(data, "mean", False), getattr(data, "std", False)
        if mean is None or std is None:
            self.mean, self.std = None, None
        elif isinstance(mean, Tensor) and isinstance(std, Tensor):
            self.mean, self.std = mean.detach().clone(), std.detach().clone()

    def settings(self) -> dict[str, str]:
        """Return mean and standard deviation as text, for reports; nothing where there are none.

        Example:
            >>> Preprocess().settings()
            {}
        """
        named = {"mean": self.mean, "std": self.std}
        return {key: ", ".join(f"{v:.4g}" for v in value.tolist()) for key, value in named.items() if value is not None}

    def save(self, state_dict: dict[str, Any], prefix: str) -> None:
        """Write mean and standard deviation to a ``state_dict``, or take them out of it where there are none."""
        for key, value in (("mean", self.mean), ("std", self.std)):
            state_dict.pop(prefix + key, None)
            if value is not None:
                state_dict[prefix + key] = value.cpu()

    def _save_to_state_dict(self, destination: dict[str, Any], prefix: str, keep_vars: bool) -> None:
        super()._save_to_state_dict(destination, prefix, keep_vars)
        self.save(destination, prefix)

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *args: Any, **kwargs: Any) -> None:
        mean, std = (state_dict.pop(prefix + key, None) for key in ("mean", "std"))
        if mean is not None and std is not None:  # a checkpoint of before knows nothing of them
            self.mean, self.std = mean.detach().clone(), std.detach().clone()
        super()._load_from_state_dict(state_dict, prefix, *args, **kwargs)


def training_datamodule(trainer: Trainer) -> Any:
    """Return the data module of a fit; None for a fit with loaders, where ``trainer.datamodule`` is an earlier one's.

    Example:
        >>> training_datamodule(Trainer(logger=False)) is None
        True
    """
    datamodule = getattr(trainer, "datamodule", None)
    return datamodule if trainer.fit_loop._data_source.instance is datamodule else None
