"""Batches from a data set: indexed, moved, augmented and standardized as wholes, and resumable in mid-epoch."""

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
    """Inputs and labels (n,), a batch of them for a list of indices."""

    labels: Tensor

    @property
    def paths(self) -> list[Path] | None:
        """Return the files that the inputs are from, if any."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: list[int]) -> tuple[Tensor, Tensor]: ...

    def subset(self, index: Tensor, labels: Tensor) -> "LabeledImages":
        """Return the inputs at ``index`` with new labels."""


class LabeledTensors:
    """Inputs (n, ...) and labels (n,) in memory, on one device: a batch is one indexing operation."""

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
    """The batches of an epoch, ``(x, labels)`` or ``((x1, ..., xV), labels)``, on the device where they are wanted.

    A plain iterable: Lightning takes it as it is, and a loop of your own can. Random numbers of an augmentation depend
    on the seed, the epoch, the process and the number of the batch alone, whoever loads it; so no two batches share
    them, and a run that is resumed in mid-epoch, which Lightning does by `state_dict`, sees what it would have seen.

    Args:
        dataset: Inputs and labels.
        sampler: Lists of indices; one of `nc_lightning.data` for training.
        views: Makes the views of a batch.
        device: Where to.
        num_workers: Processes that load batches, for inputs in files.

    Attributes:
        unreadable: Files that the last pass could not read.

    Example:
        >>> dataset = LabeledTensors(torch.arange(6.0), torch.tensor([0, 0, 0, 1, 1, 1]))
        >>> [labels.tolist() for _, labels in BatchLoader(dataset, [[0, 5], [1, 2]], Views())]
        [[0, 1], [0, 0]]
    """

    batch_sampler = None
    """Lightning looks for it beside ``sampler``, whose epoch it sets."""

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
        # A state of an epoch that is over, be it before its last batch, says nothing of this one.
        self._position = start if epoch == self._epoch else 0
        self.unreadable = []
        for x, labels, *failed in self._indexed(self._position):
            self.unreadable += failed[0] if failed else []
            # Before the batch is handed out: a state that is asked for while it is used has it behind itself.
            generator = self._generator()
            self._position += 1
            yield self.views(to_device(x, self.device), generator), to_device(labels, self.device)
        if self.unreadable:
            rank_zero_warn(
                f"left out {len(self.unreadable)} images that cannot be read, the first one {self.unreadable[0]}"
            )

    def paths(self, num_batches: int) -> list[Path] | None:
        """Return the files of the first batches of a fixed order that has been read; None if there are no files."""
        if self.images.paths is None or isinstance(self.sampler, EpochSampler):
            return None
        left_out = {file.path for file in self.unreadable}
        paths = [self.images.paths[i] for batch in self.sampler[:num_batches] for i in batch]
        return [path for path in paths if path not in left_out]

    def state_dict(self) -> dict[str, Any]:
        """Return the epoch, and how many of its batches have been handed out."""
        return {"epoch": self._epoch, "position": self._position}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Let the next pass begin after the batches of `state_dict` if it is of the same epoch."""
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
            generator=torch.Generator(),  # else torch's own moves on, once more where an epoch is begun in its middle
        )
        try:
            yield from loader
        except ValueError as error:
            # What a worker raises comes with its whole traceback as the message.
            raise ValueError(str(error).strip().splitlines()[-1].removeprefix("ValueError: ")) from error

    def _generator(self) -> torch.Generator | None:
        if self.views.augmentation is None or not isinstance(self.sampler, EpochSampler):
            return None
        return self.sampler.views_generator(self._position, self.device)


@functools.cache
def takes_pinned_memory(device: torch.device) -> bool:
    """Return whether copies to a device come from pinned memory: the CPU and Apple's GPUs have none of their own.

    Example:
        >>> takes_pinned_memory(torch.device("cpu"))
        False
    """
    if device.type in ("cpu", "mps"):
        return False
    try:
        torch.empty(1, device="cpu").pin_memory()
    except RuntimeError:  # not every backend has it
        return False
    return True


def to_device(x: Tensor, device: torch.device) -> Tensor:
    """Return a tensor on a device, without waiting for what the device still has to do.

    Example:
        >>> to_device(torch.ones(2), torch.device("cpu"))
        tensor([1., 1.])
    """
    if x.device.type == "cpu" and takes_pinned_memory(device):
        x = x.pin_memory()  # from other memory a large copy would wait
    return x.to(device, non_blocking=True)
