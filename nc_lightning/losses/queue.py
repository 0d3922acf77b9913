"""A queue of past features, which serve as extra negatives."""

from typing import Any

import torch
from torch import Tensor

from nc_lightning.checks import check_count, check_features, check_labels


class FeatureQueue:
    """First-in, first-out queue of detached features and their labels.

    As the ``queue`` of a `ContrastiveLoss`, which `HardNegativeSampler` sets during training steps, its features are
    negatives in addition to those of the batch, and never anchors or positives.

    Args:
        size: Maximum number of features.

    Raises:
        ValueError: If the size is not a positive integer, or pushed features have another dimension.

    Source:
        He et al. (2020), arXiv 1911.05722, without the second encoder; Wang et al. (2020), arXiv 1912.06798.

    Example:
        >>> queue = FeatureQueue(size=3)
        >>> queue.push(torch.eye(2), torch.tensor([0, 1]))
        >>> queue.push(-torch.eye(2), torch.tensor([2, 3]))
        >>> len(queue), sorted(queue.labels.tolist())
        (3, [1, 2, 3])
    """

    def __init__(self, size: int) -> None:
        check_count("queue_size", size)
        self.size = size
        self.clear()

    def clear(self) -> None:
        """Remove all features."""
        self._features, self._labels = torch.empty(0, 0), torch.empty(0, dtype=torch.long)
        self._next, self._held = 0, 0

    def __len__(self) -> int:
        """Return the number of features in the queue."""
        return self._held

    @property
    def features(self) -> Tensor:
        """Features (M, d), in unspecified order."""
        return self._features[: self._held]

    @property
    def labels(self) -> Tensor:
        """Labels (M,), in the order of ``features``."""
        return self._labels[: self._held]

    @torch.no_grad()
    def push(self, z: Tensor, labels: Tensor) -> None:
        """Append features (N, d) in order, with labels (N,), negative where unknown."""
        check_features(z)
        check_labels(labels, len(z))
        self.check_dimension(z)
        if len(self) == 0:
            dtype = torch.promote_types(z.dtype, torch.float32)
            self._features = torch.empty(self.size, z.shape[1], dtype=dtype, device=z.device)
            self._labels = torch.empty(self.size, dtype=torch.long, device=z.device)
        self.to(z.device)
        z, labels = z[-self.size :], labels[-self.size :].to(self._labels)
        at = (self._next + torch.arange(len(z), device=self._labels.device)) % self.size
        self._features.index_copy_(0, at, z.to(self._features))
        self._labels.index_copy_(0, at, labels)
        self._next = (self._next + len(z)) % self.size
        self._held = min(self.size, self._held + len(z))

    def to(self, device: torch.device) -> None:
        """Move features and labels to a device, for example after loading a checkpoint."""
        self._features, self._labels = self._features.to(device), self._labels.to(device)

    def on_device_of(self, z: Tensor) -> tuple[Tensor, Tensor]:
        """Return features and labels on the device of z (N, d), the features in the dtype of z."""
        self.check_dimension(z)
        self.to(z.device)
        return self.features.to(z), self.labels

    def check_dimension(self, z: Tensor) -> None:
        """Raise unless z (N, d) has the feature dimension of the queue."""
        if len(self) > 0 and z.shape[1] != self._features.shape[1]:
            raise ValueError(
                f"queue: got features of {z.shape[1]} dimensions, expected {self._features.shape[1]}, those of the "
                "features in it; clear it first"
            )

    def state_dict(self) -> dict[str, Any]:
        """Return the features and labels, oldest first, and the position of the oldest one."""
        oldest = self._next if self._held == self.size else 0
        order = (oldest + torch.arange(self._held, device=self._labels.device)) % self.size
        return {"features": self.features[order], "labels": self.labels[order], "oldest": oldest}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Load the state of a queue of any size."""
        self.clear()
        # Restoring the positions keeps the order of summation, so that sums round as before.
        self._next = state["oldest"] if len(state["labels"]) == self.size else 0
        if len(state["labels"]) > 0:
            self.push(state["features"], state["labels"])
