"""Batch samplers: which images meet in a batch. Each yields lists of indices, one list a batch."""

from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Sampler

from nc_lightning.geometry.checks import check_count


class _EpochSampler(Sampler[list[int]]):
    """Batches that depend on (seed, epoch) alone, so that a run can be repeated, and no epoch repeats another."""

    def __init__(self, num_batches: int, seed: int) -> None:
        self.num_batches = num_batches
        self.seed = seed
        self.epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch whose batches come next; Lightning calls this by itself."""
        self.epoch = epoch

    def _generator(self) -> torch.Generator:
        # Hash the pair: torch's CPU generator looks at 32 bits only, and sums of seed and epoch coincide.
        return torch.Generator().manual_seed(int(np.random.SeedSequence((self.seed, self.epoch)).generate_state(1)[0]))

    def __len__(self) -> int:
        return self.num_batches


class ClassBalancedBatchSampler(_EpochSampler):
    """Batches that hold every class equally often, as the theorems assume.

    Each class is shuffled and walked through from end to end before any of its samples comes again, also from one
    batch to the next. An epoch is as many batches as the data set fills; classes with fewer samples than others come
    round more often.

    Args:
        labels: (n,) classes of the data set, integers in [0, C), each class present.
        batch_size: A multiple of C, at least 2 C, so that every anchor has a positive.
        seed: Of the shuffling.

    Raises:
        ValueError: If ``batch_size`` is not such a multiple, or a class is absent.

    Example:
        >>> sampler = ClassBalancedBatchSampler(torch.tensor([0, 0, 0, 1, 1, 1]), batch_size=4)
        >>> [sorted(index // 3 for index in batch) for batch in sampler]
        [[0, 0, 1, 1]]
    """

    def __init__(self, labels: Tensor, batch_size: int, seed: int = 0) -> None:
        check_count("batch_size", batch_size)
        self.members = [torch.nonzero(labels == c).squeeze(1) for c in range(int(labels.max()) + 1)]
        num_classes = len(self.members)
        empty = [c for c, members in enumerate(self.members) if len(members) == 0]
        if empty:
            raise ValueError(f"labels: got no sample of class {empty[0]}, expected every class for balanced batches")
        if batch_size % num_classes != 0 or batch_size < 2 * num_classes:
            raise ValueError(
                f"batch_size: got {batch_size}, expected a multiple of the {num_classes} classes and at least "
                f"{2 * num_classes} for balanced batches; or ask for batches: random"
            )
        self.per_class = batch_size // num_classes
        super().__init__(max(1, len(labels) // batch_size), seed)

    def __iter__(self) -> Iterator[list[int]]:
        generator = self._generator()
        needed = self.num_batches * self.per_class
        columns = [self._cycle(members, needed, generator) for members in self.members]
        table = torch.stack(columns).view(len(columns), self.num_batches, self.per_class)
        for batch in range(self.num_batches):
            yield table[:, batch].flatten().tolist()

    @staticmethod
    def _cycle(members: Tensor, needed: int, generator: torch.Generator) -> Tensor:
        rounds = -(-needed // len(members))
        shuffled = [members[torch.randperm(len(members), generator=generator)] for _ in range(rounds)]
        return torch.cat(shuffled)[:needed]


class RandomBatchSampler(_EpochSampler):
    """Batches of a fresh shuffle every epoch, as most training code draws them; a smaller last batch is dropped.

    Args:
        num_samples: Size n of the data set.
        batch_size: At most n.
        seed: Of the shuffling.

    Raises:
        ValueError: If ``batch_size`` is below 1 or above n.

    Example:
        >>> len(RandomBatchSampler(num_samples=10, batch_size=4))
        2
    """

    def __init__(self, num_samples: int, batch_size: int, seed: int = 0) -> None:
        check_count("batch_size", batch_size)
        if batch_size > num_samples:
            raise ValueError(f"batch_size: got {batch_size}, expected at most the {num_samples} samples there are")
        self.num_samples = num_samples
        self.batch_size = batch_size
        super().__init__(num_samples // batch_size, seed)

    def __iter__(self) -> Iterator[list[int]]:
        order = torch.randperm(self.num_samples, generator=self._generator()).tolist()
        for batch in range(self.num_batches):
            yield order[batch * self.batch_size : (batch + 1) * self.batch_size]
