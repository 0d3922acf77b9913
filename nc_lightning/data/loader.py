"""Batches of a data set: indexed, moved, augmented and standardized as a whole, and resumable in mid-epoch."""

import functools
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Protocol

import torch
from lightning.pytorch.utilities.rank_zero import rank_zero_warn
from torch import Tensor
from torch.utils.data import DataLoader

from nc_lightning.data.samplers import EpochSampler
from nc_lightning.data.views import Views


class LabeledImages(Protocol):
    """Inputs and labels (n,); a list of indices returns a batch of them."""

    labels: Tensor

    @property
    def paths(self) -> list[Path] | None:
        """Return the files of the inputs; None if they do not come from files."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: list[int]) -> tuple[Tensor, Tensor]: ...

    def subset(self, index: Tensor, labels: Tensor) -> "LabeledImages":
        """Return the inputs at ``index`` with new labels."""


class LabeledTensors:
    """Inputs (n, ...) and labels (n,) in memory, on one device; a batch is a single indexing operation."""

    def __init__(self, x: Tensor, labels: Tensor, paths: list[Path] | None = None) -> None:
        self.x, self.labels = x, labels
        self.paths: list[Path] | None = paths

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int | list[int]) -> tuple[Tensor, Tensor]:
        if isinstance(index, int):
            return self.x[index], self.labels[index]
        chosen = to_device(torch.tensor(index, dtype=torch.int64, device="cpu"), self.x.device)
        return self.x[chosen], self.labels[chosen]

    def subset(self, index: Tensor, labels: Tensor) -> "LabeledTensors":
        """Return the inputs at ``index`` with new labels."""
        paths = None if self.paths is None else [self.paths[i] for i in index.tolist()]
        return LabeledTensors(self.x[index], labels, paths)


class BatchLoader:
    """Iterate over the batches of an epoch, ``(x, labels)`` or ``((x1, ..., xV), labels)``, on the training device.

    A plain iterable, for Lightning or for your own loop. The random numbers of an augmentation depend only on the seed,
    the epoch, the process and the number of the batch. So no two batches share them, and a run resumed in mid-epoch
    (Lightning does this with `state_dict`) sees the same augmentations as an uninterrupted one.

    Args:
        dataset: Inputs and labels.
        sampler: Lists of indices; a sampler of `nc_lightning.data` for training.
        views: Transform of a batch into its views.
        device: Device that batches are moved to.
        num_workers: Number of worker processes that load batches, for inputs in files.

    Attributes:
        unreadable: Files that the last pass could not read.

    Example:
        >>> dataset = LabeledTensors(torch.arange(6.0), torch.tensor([0, 0, 0, 1, 1, 1]))
        >>> [labels.tolist() for _, labels in BatchLoader(dataset, [[0, 5], [1, 2]], Views())]
        [[0, 1], [0, 0]]
    """

    batch_sampler = None
    """Lightning also looks for this attribute when it sets the epoch of ``sampler``."""

    def __init__(
        self,
        dataset: LabeledImages,
        sampler: EpochSampler | Sequence[list[int]],
        views: Views,
        device: torch.device | str = "cpu",
        num_workers: int = 0,
    ) -> None:
        self.images = dataset
        self.sampler = sampler
        self.views = views
        self.device = torch.device(device)
        self.num_workers = num_workers
        self.unreadable: list[Any] = []
        self._position = 0
        self._resume_at: tuple[int, int] | None = None

    def __len__(self) -> int:
        return len(self.sampler)

    def __iter__(self) -> Iterator[tuple[Tensor | tuple[Tensor, ...], Tensor]]:
        epoch, start = self._resume_at or (None, 0)
        self._resume_at = None
        # A state saved in another epoch, even before its last batch, does not apply to this one.
        self._position = start if epoch == self._epoch else 0
        self.unreadable = []
        for x, labels, *failed in self._indexed(self._position):
            self.unreadable += failed[0] if failed else []
            # Advance before yielding, so that a state saved while the batch is in use counts it as consumed.
            generator = self._generator()
            self._position += 1
            yield self.views(to_device(x, self.device), generator), to_device(labels, self.device)
        if self.unreadable:
            rank_zero_warn(
                f"skipped {len(self.unreadable)} images that cannot be read, the first one {self.unreadable[0]}"
            )

    def indices(self, batch_idx: int) -> list[int] | None:
        """Return the indices of a batch that was read, without unreadable inputs; None if the order is random."""
        if isinstance(self.sampler, EpochSampler):
            return None
        left_out, paths = {file.path for file in self.unreadable}, self.images.paths
        return [i for i in self.sampler[batch_idx] if paths is None or paths[i] not in left_out]

    def state_dict(self) -> dict[str, Any]:
        """Return the epoch, and the number of its batches that have been yielded."""
        return {"epoch": self._epoch, "position": self._position}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Start the next pass after the batches of `state_dict` if it is a pass of the same epoch."""
        self._resume_at = state_dict["epoch"], state_dict["position"]

    @property
    def _epoch(self) -> int | None:
        return self.sampler.epoch if isinstance(self.sampler, EpochSampler) else None

    def _indexed(self, start: int) -> Iterator[Any]:
        sampler = self.sampler
        indices = sampler.batches(start) if isinstance(sampler, EpochSampler) else iter(sampler[start:])
        if self.num_workers == 0:
            return (self.images[index] for index in indices)
        return self._by_workers(list(indices))

    def _by_workers(self, indices: list[list[int]]) -> Iterator[Any]:
        # The sampler yields whole batches of indices, so that the loader neither batches nor collates.
        loader: DataLoader[Any] = DataLoader(
            self.images,  # type: ignore[arg-type]
            sampler=indices,
            batch_size=None,
            num_workers=self.num_workers,
            pin_memory=takes_pinned_memory(self.device),
            generator=torch.Generator(),  # otherwise the global generator advances, once more when an epoch is resumed
        )
        try:
            yield from loader
        except ValueError as error:
            # The message of a worker's error is its whole traceback.
            raise ValueError(str(error).strip().splitlines()[-1].removeprefix("ValueError: ")) from error

    def _generator(self) -> torch.Generator | None:
        if self.views.augmentation is None or not isinstance(self.sampler, EpochSampler):
            return None
        return self.sampler.views_generator(self._position, self.device)


@functools.cache
def takes_pinned_memory(device: torch.device) -> bool:
    """Return whether copies to a device need pinned memory; the CPU and Apple's GPUs share the host's memory.

    Example:
        >>> takes_pinned_memory(torch.device("cpu"))
        False
    """
    if device.type in ("cpu", "mps"):
        return False
    try:
        torch.empty(1, device="cpu").pin_memory()
    except RuntimeError:  # not every backend supports it
        return False
    return True


def to_device(x: Tensor, device: torch.device) -> Tensor:
    """Return a tensor on a device, without synchronizing with the device.

    Example:
        >>> to_device(torch.ones(2), torch.device("cpu"))
        tensor([1., 1.])
    """
    if x.device.type == "cpu" and takes_pinned_memory(device):
        x = x.pin_memory()  # a large copy from pageable memory would block
    return x.to(device, non_blocking=True)
