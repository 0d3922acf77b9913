"""Mean and standard deviation of the training images, and the preprocessing that an encoder expects."""

import torch
from torch import Tensor, nn

from nc_lightning.data.loader import LabelledImages, LabelledTensors

STATISTICS_FROM = 1000
"""Number of images that mean and standard deviation are taken from where they are not in memory."""


class Preprocess(nn.Module):
    """Turn images into the inputs of an encoder, as in training: float in [0, 1], standardised by each channel.

    Mean and standard deviation are buffers, so that they are part of a checkpoint.

    Args:
        mean: (channels,) mean of the training images in [0, 1]; None to standardise nothing.
        std: (channels,) their standard deviation.

    Shape:
        (N, channels, H, W) uint8, or float in [0, 1] -> float32

    Example:
        >>> preprocess = Preprocess(torch.tensor([0.5]), torch.tensor([0.25]))
        >>> preprocess(torch.full((1, 1, 1, 1), 255, dtype=torch.uint8)).item()
        2.0
    """

    mean: Tensor | None
    std: Tensor | None

    def __init__(self, mean: Tensor | None = None, std: Tensor | None = None) -> None:
        super().__init__()
        self.register_buffer("mean", mean)
        self.register_buffer("std", std)

    def forward(self, x: Tensor) -> Tensor:
        """Standardise a batch."""
        x = x.float() / 255 if x.dtype == torch.uint8 else x.float()
        if self.mean is None or self.std is None:
            return x
        return (x - self.mean.view(-1, 1, 1)) / self.std.view(-1, 1, 1)


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
