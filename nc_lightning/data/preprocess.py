"""Mean and standard deviation of the training images, and the preprocessing that an encoder expects."""

from typing import Any

import torch
from lightning.pytorch.utilities.rank_zero import rank_zero_warn
from torch import Tensor, nn

from nc_lightning.data.loader import BatchLoader, LabeledImages, LabeledTensors
from nc_lightning.data.views import as_floats, standardize

STATISTICS_FROM = 1000
"""Number of images that estimate mean and standard deviation when the images are not in memory."""


class Preprocess(nn.Module):
    """Convert images to the encoder's input: float in [0, 1], then standardized channel by channel.

    Mean and standard deviation are part of ``state_dict`` once they are known. They are not buffers: DDP would
    broadcast buffers in every step, and older checkpoints lack them.

    Args:
        mean: Mean (channels,) of the training images in [0, 1]; None if training did not standardize.
        std: Standard deviation (channels,) of the training images; None with the mean.

    Attributes:
        known: Whether mean and std (or None for both) are known to be those of the training data.

    Shape:
        (N, channels, ...) uint8 in [0, 255], or float in [0, 1] -> float32 or better; without a mean any floats

    Raises:
        TypeError: If images are not a tensor, or integers of a type whose range is unknown.
        ValueError: If the number of channels differs, or floats are outside the range of images.

    Example:
        >>> preprocess = Preprocess(torch.tensor([0.5]), torch.tensor([0.25]))
        >>> preprocess(torch.tensor([[[[0.75]]]])), preprocess(torch.tensor([[[[255]]]], dtype=torch.uint8))
        (tensor([[[[1.]]]]), tensor([[[[2.]]]]))
    """

    def __init__(self, mean: Tensor | None = None, std: Tensor | None = None) -> None:
        super().__init__()
        self.mean = mean
        self.std = std
        self.known = mean is not None

    def forward(self, x: Tensor) -> Tensor:
        """Scale and standardize a batch."""
        if not isinstance(x, Tensor):
            raise TypeError(f"preprocess: got {type(x).__name__}, expected a tensor (N, channels, ...)")
        if self.mean is None or self.std is None:
            return _as_real(x)
        if not x.is_floating_point() and x.dtype != torch.uint8:
            raise TypeError(f"preprocess: got images in {x.dtype}, expected torch.uint8, or floats in [0, 1]")
        if x.is_floating_point() and x.numel() and not torch.compiler.is_compiling():
            low, high = (float(value) for value in torch.aminmax(x))
            if low < -0.5 or high > 1.5:  # resizing and noise overshoot a little
                raise ValueError(
                    f"preprocess: got floats from {low:.3g} to {high:.3g}, expected images in [0, 1]; divide those in "
                    "[0, 255] by 255, and do not standardize them first"
                )
        x = _as_real(x)
        return standardize(x, self.mean.to(x), self.std.to(x))

    def take_from(self, data: Any) -> None:
        """Copy the mean and standard deviation of a data module or a loader; None if it has none."""
        self.mean, self.std, self.known = _statistics_of(data)

    def settings(self) -> dict[str, str]:
        """Return mean and standard deviation as text, for reports; an empty dict if there are none.

        Example:
            >>> Preprocess().settings()
            {}
        """
        named = {"mean": self.mean, "std": self.std}
        return {key: _listed(value) for key, value in named.items() if value is not None}

    def save(self, state_dict: dict[str, Any], prefix: str) -> None:
        """Write mean and standard deviation to a ``state_dict``, or remove them from it if there are none."""
        for key, value in (("mean", self.mean), ("std", self.std)):
            state_dict.pop(prefix + key, None)
            if value is not None:
                state_dict[prefix + key] = value.cpu()

    def _save_to_state_dict(self, destination: dict[str, Any], prefix: str, keep_vars: bool) -> None:
        super()._save_to_state_dict(destination, prefix, keep_vars)
        self.save(destination, prefix)

    def load(self, state_dict: dict[str, Any], prefix: str) -> None:
        """Read what `save` has written; if the keys are missing, training did not standardize."""
        mean, std = (state_dict.get(prefix + key) for key in ("mean", "std"))
        self.mean, self.std = (None, None) if mean is None or std is None else (mean.clone(), std.clone())
        self.known = True

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *args: Any, **kwargs: Any) -> None:
        if prefix + "mean" in state_dict:  # older checkpoints have neither
            self.load(state_dict, prefix)
        for key in ("mean", "std"):
            state_dict.pop(prefix + key, None)
        super()._load_from_state_dict(state_dict, prefix, *args, **kwargs)


def _as_real(x: Tensor) -> Tensor:
    return x if x.dtype in (torch.float32, torch.float64) else as_floats(x)


def _statistics_of(data: Any) -> tuple[Tensor | None, Tensor | None, bool]:
    """Return mean and standard deviation (channels,), and whether the data define them."""
    source = data.views if isinstance(data, BatchLoader) else data
    given = [getattr(source, name, "unknown") for name in ("mean", "std")]
    if any(value is None for value in given):
        return None, None, True
    try:
        mean, std = (torch.as_tensor(value).detach().clone().flatten() for value in given)
        mean, std = (value if value.is_floating_point() else value.float() for value in (mean, std))
    except (TypeError, ValueError, RuntimeError):  # the attributes are missing or not numbers
        return None, None, False
    if len(mean) != len(std) or not bool(((mean >= 0) & (mean <= 1) & (std > 0) & std.isfinite()).all()):
        rank_zero_warn(
            f"data: got mean {_listed(mean)} and std {_listed(std)}, expected those of images in [0, 1], one for each "
            "channel; model.preprocess does not standardize"
        )
        return None, None, False
    return mean, std, True


def _listed(values: Tensor) -> str:
    return ", ".join(f"{value:.4g}" for value in values.tolist())


def channel_statistics(images: LabeledImages, seed: int = 0) -> tuple[Tensor | None, Tensor | None]:
    """Return mean and standard deviation (channels,) of uint8 images, scaled to [0, 1]; None for other inputs.

    They are computed from all images in memory, or else from a thousand drawn at random.

    Example:
        >>> x = torch.tensor([0, 255], dtype=torch.uint8).view(2, 1, 1, 1)
        >>> channel_statistics(LabeledTensors(x, torch.tensor([0, 1])))
        (tensor([0.5000]), tensor([0.5000]))
    """
    if isinstance(images, LabeledTensors):
        x = images.x
    else:
        drawn = torch.randperm(len(images), generator=torch.Generator().manual_seed(seed))[:STATISTICS_FROM]
        x = images[drawn.sort().values.tolist()][0]
    if x.dtype != torch.uint8:
        return None, None
    # Counts of the 256 values are exact and need no float copy of the set.
    counts = torch.stack([torch.bincount(channel.flatten(), minlength=256) for channel in x.unbind(1)]).double()
    values = torch.arange(256, dtype=torch.float64) / 255
    share = counts / counts.sum(1, keepdim=True)
    mean = share @ values
    std = (share * (values - mean[:, None]) ** 2).sum(1).sqrt().clamp(min=1e-6)
    return mean.float(), std.float()
