"""Mean and standard deviation of the training images, and the preprocessing that an encoder expects."""

from typing import Any

import torch
from torch import Tensor, nn

from nc_lightning.data.loader import LabelledImages, LabelledTensors
from nc_lightning.data.views import as_floats, standardise

STATISTICS_FROM = 1000
"""Number of images that mean and standard deviation are taken from where they are not in memory."""


class Preprocess(nn.Module):
    """Turn images into what an encoder was trained on: float in [0, 1], then standardised channel by channel.

    Mean and standard deviation are part of ``state_dict`` once they are known. They are no buffers, which DDP would
    broadcast in every step and checkpoints of before would lack.

    Args:
        mean: (channels,) mean of the training images in [0, 1]; None where training standardised nothing.
        std: (channels,) their standard deviation; None with the mean.

    Shape:
        (N, channels, ...) uint8 in [0, 255], or float in [0, 1] -> float32 or better

    Raises:
        TypeError: If images are integers of another type, whose range is not known.

    Example:
        >>> preprocess = Preprocess(torch.tensor([0.5]), torch.tensor([0.25]))
        >>> preprocess(torch.tensor([[[[0.75]]]])), preprocess(torch.tensor([[[[255]]]], dtype=torch.uint8))
        (tensor([[[[1.]]]]), tensor([[[[2.]]]]))
    """

    def __init__(self, mean: Tensor | None = None, std: Tensor | None = None) -> None:
        super().__init__()
        self.mean = mean
        self.std = std

    def forward(self, x: Tensor) -> Tensor:
        """Scale and standardise a batch."""
        if self.mean is not None and not x.is_floating_point() and x.dtype != torch.uint8:
            raise TypeError(f"preprocess: got images in {x.dtype}, expected torch.uint8, or floats in [0, 1]")
        x = x if x.is_floating_point() else as_floats(x)
        if self.mean is None or self.std is None:
            return x
        return standardise(x, self.mean.to(x), self.std.to(x))

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


def channel_statistics(images: LabelledImages, seed: int = 0) -> tuple[Tensor | None, Tensor | None]:
    """Return mean and standard deviation (channels,) of images of bytes, in [0, 1]; None for other inputs.

    Of all images in memory, else of a thousand drawn at random.

    Example:
        >>> x = torch.tensor([0, 255], dtype=torch.uint8).view(2, 1, 1, 1)
        >>> channel_statistics(LabelledTensors(x, torch.tensor([0, 1])))
        (tensor([0.5000]), tensor([0.5000]))
    """
    if isinstance(images, LabelledTensors):
        x = images.x
    else:
        drawn = torch.randperm(len(images), generator=torch.Generator().manual_seed(seed))[:STATISTICS_FROM]
        x = images[drawn.sort().values.tolist()][0]
    if x.dtype != torch.uint8:
        return None, None
    # Counts of the 256 values are exact and take no float copy of the set.
    counts = torch.stack([torch.bincount(channel.flatten(), minlength=256) for channel in x.unbind(1)]).double()
    values = torch.arange(256, dtype=torch.float64) / 255
    share = counts / counts.sum(1, keepdim=True)
    mean = share @ values
    std = (share * (values - mean[:, None]) ** 2).sum(1).sqrt().clamp(min=1e-6)
    return mean.float(), std.float()
