"""Batch samplers: each yields lists of indices, one list per batch."""

from abc import abstractmethod
from collections.abc import Iterator
from functools import cached_property

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DistributedSampler

from nc_lightning.checks import check_count
from nc_lightning.distributed.collectives import rank_and_world_size


class EpochSampler(DistributedSampler[list[int]]):
    """Yield batches that depend only on (seed, epoch), so that a run can be repeated and every epoch differs.

    With several processes, global batches of ``num_replicas * batch_size`` indices are drawn, and each process takes
    its shard; all shards are disjoint and equally long. Lightning does not replace a `DistributedSampler`; pass it to a
    loader as ``DataLoader(dataset, sampler=sampler, batch_size=None)``.

    Args:
        labels: Classes (n,) of the data set, integers in [0, C).
        batch_size: Samples in a batch of each process; the global batch has at most n, unless batches may repeat.
        seed: Seed of the shuffle.
        num_replicas: Number of processes that share the batches; None for those of ``torch.distributed``.
        rank: Rank of this process.

    Raises:
        ValueError: If ``batch_size`` is below 1 or above n.
    """

    may_repeat = False
    """Whether a batch may hold a sample more than once."""

    def __init__(
        self, labels: Tensor, batch_size: int, seed: int = 0, num_replicas: int | None = None, rank: int | None = None
    ) -> None:
        check_count("batch_size", batch_size)
        this, processes = rank_and_world_size()
        num_replicas = processes if num_replicas is None else num_replicas
        rank = this if rank is None else rank
        super().__init__(labels, num_replicas, rank, seed=seed)  # type: ignore[arg-type]
        self.labels = labels
        self.global_batch_size = batch_size * num_replicas
        if self.global_batch_size > len(labels) and not self.may_repeat:
            raise ValueError(
                f"batch_size: got {self.global_batch_size}, expected at most the {len(labels)} samples there are"
            )
        self.num_batches = max(1, len(labels) // self.global_batch_size)

    @abstractmethod
    def draw(self, generator: torch.Generator) -> Tensor:
        """Return the indices (num_batches, global_batch_size) of an epoch."""

    def repeated(self) -> str | None:
        """Return a one-line warning if a batch repeats samples; None if it has each at most once."""
        return None

    def generator(self) -> torch.Generator:
        """Return the generator of the epoch's order."""
        # Hash the pair: torch's CPU generator uses only 32 bits, and different pairs can have the same sum.
        return torch.Generator().manual_seed(_hash(self.seed, self.epoch))

    def views_generator(self, batch: int, device: torch.device | str = "cpu") -> torch.Generator:
        """Return the generator for the views of this process's batch number ``batch``.

        Its seed counts batches over epochs and processes, so that it is unique within a run; hashes may collide.
        """
        count = (self.epoch * self.num_batches + batch) * self.num_replicas + self.rank
        return torch.Generator(device).manual_seed((_hash(self.seed, 0, 0) + count) % 2**32)

    def batches(self, start: int = 0) -> Iterator[list[int]]:
        """Yield this process's shard of each batch from number ``start``, to resume in mid-epoch."""
        drawn = self.draw(self.generator())
        for batch in drawn[start:]:
            yield batch[self.rank :: self.num_replicas].tolist()

    def __iter__(self) -> Iterator[list[int]]:
        return self.batches()

    def __len__(self) -> int:
        return self.num_batches


class ClassBalancedBatchSampler(EpochSampler):
    """Yield batches with the same number of each class: of every class, as the theorems assume, or of some.

    Each class is shuffled and used up before any of its samples repeats, across batches; likewise the classes
    themselves when a batch holds only some of them. An epoch has as many batches as the data set fills; samples of
    smaller classes repeat more often.

    Args:
        labels: Classes (n,) of the data set, integers in [0, C), each class present.
        batch_size: Samples in a batch of each process. The global batch must have each class equally often and at least
            twice, so that every anchor has a positive.
        seed: Seed of the shuffle.
        classes_per_batch: Number of different classes in a batch; None for all C.
        num_replicas: See `EpochSampler`.
        rank: See `EpochSampler`.

    Raises:
        ValueError: If ``batch_size`` does not divide so, ``classes_per_batch`` is above C, or a class is absent.

    Example:
        >>> sampler = ClassBalancedBatchSampler(torch.tensor([0, 0, 0, 1, 1, 1]), batch_size=4)
        >>> [sorted(index // 3 for index in batch) for batch in sampler]
        [[0, 0, 1, 1]]
    """

    may_repeat = True

    def __init__(
        self,
        labels: Tensor,
        batch_size: int,
        seed: int = 0,
        classes_per_batch: int | None = None,
        num_replicas: int | None = None,
        rank: int | None = None,
    ) -> None:
        super().__init__(labels, batch_size, seed, num_replicas, rank)
        self.members = members_by_class(labels)
        num_classes = len(self.members)
        empty = [c for c, members in enumerate(self.members) if len(members) == 0]
        if empty:
            raise ValueError(f"labels: got no sample of class {empty[0]}, expected every class for balanced batches")
        if classes_per_batch is not None:
            check_count("classes_per_batch", classes_per_batch, at_least=2)
            if classes_per_batch > num_classes:
                raise ValueError(
                    f"classes_per_batch: got {classes_per_batch}, expected at most the {num_classes} classes"
                )
        self.classes_per_batch = num_classes if classes_per_batch is None else classes_per_batch
        if self.global_batch_size % self.classes_per_batch != 0 or self.global_batch_size < 2 * self.classes_per_batch:
            processes = f" on {self.num_replicas} processes" if self.num_replicas > 1 else ""
            raise ValueError(
                f"batch_size: got {batch_size}{processes}, expected a multiple of the {self.classes_per_batch} classes "
                f"in a batch and at least {2 * self.classes_per_batch} for balanced batches; "
                "or set classes_per_batch, or batches to random"
            )
        self.per_class = self.global_batch_size // self.classes_per_batch

    def repeated(self) -> str | None:
        """Return a one-line warning if a batch repeats samples of its smallest class."""
        sizes = [len(members) for members in self.members]
        if min(sizes) >= self.per_class:
            return None
        return (
            f"batch_size: got {self.global_batch_size}, so a balanced batch holds {self.per_class} of each class and "
            f"repeats samples of {sum(size < self.per_class for size in sizes)} classes; the smallest class has "
            f"{min(sizes)}; set a smaller batch_size, or batches to stratified"
        )

    def draw(self, generator: torch.Generator) -> Tensor:
        """Return the indices of an epoch, class by class within a batch."""
        classes = self._classes(generator)
        table = classes.new_empty(classes.numel(), self.per_class)
        for members, rows in zip(self.members, members_by_class(classes.flatten(), len(self.members)), strict=True):
            table[rows] = _cycle(members, len(rows) * self.per_class, generator).view(len(rows), self.per_class)
        return table.view(self.num_batches, self.global_batch_size)

    def _classes(self, generator: torch.Generator) -> Tensor:
        """Return the classes (num_batches, classes_per_batch), all different within a batch."""
        num_classes, wanted = len(self.members), self.classes_per_batch
        if wanted == num_classes:
            return torch.arange(num_classes).repeat(self.num_batches, 1)
        queue, batches = torch.empty(0, dtype=torch.int64), []
        for _ in range(self.num_batches):
            if len(queue) < wanted:
                # Classes still in the queue go to the end of the next round, so that no batch holds one twice.
                fresh = torch.randperm(num_classes, generator=generator)
                waiting = torch.isin(fresh, queue)
                first = fresh[~waiting][: wanted - len(queue)]
                rest = fresh[~torch.isin(fresh, first)]
                queue = torch.cat([queue, first, rest])
            batches.append(queue[:wanted])
            queue = queue[wanted:]
        return torch.stack(batches)


class RandomBatchSampler(EpochSampler):
    """Yield batches of a fresh shuffle every epoch, as most training code does; a smaller last batch is dropped.

    Its first argument is the size n of the data set instead of labels; the others are those of `EpochSampler`.

    Example:
        >>> len(RandomBatchSampler(num_samples=10, batch_size=4))
        2
    """

    def __init__(
        self, num_samples: int, batch_size: int, seed: int = 0, num_replicas: int | None = None, rank: int | None = None
    ) -> None:
        super().__init__(torch.empty(num_samples), batch_size, seed, num_replicas, rank)

    def draw(self, generator: torch.Generator) -> Tensor:
        """Return the indices of an epoch."""
        order = torch.randperm(len(self.labels), generator=generator)
        return order[: self.num_batches * self.global_batch_size].view(self.num_batches, self.global_batch_size)


class StratifiedBatchSampler(EpochSampler):
    """Yield batches that hold each class in proportion to the data set, each sample at most once per epoch.

    For unbalanced classes: a batch of n of N samples has n N_c / N of class c, give or take two. The arguments are
    those of `EpochSampler`.

    Example:
        >>> labels = torch.tensor([0] * 30 + [1] * 10)
        >>> [labels[batch].bincount().tolist() for batch in StratifiedBatchSampler(labels, batch_size=20)]
        [[15, 5], [15, 5]]
    """

    @cached_property
    def members(self) -> list[Tensor]:
        """Indices of each class, the same in every epoch."""
        return members_by_class(self.labels)

    def draw(self, generator: torch.Generator) -> Tensor:
        """Spread each class evenly over the epoch, from a random offset, and cut the row into batches."""
        places, indices = [], []
        for members in self.members:
            offset = torch.rand(1, generator=generator, dtype=torch.float64)
            places.append((torch.arange(len(members)) + offset) / max(1, len(members)))
            indices.append(members[torch.randperm(len(members), generator=generator)])
        order = torch.cat(indices)[torch.cat(places).argsort(stable=True)]
        return order[: self.num_batches * self.global_batch_size].view(self.num_batches, self.global_batch_size)


class FixedBatches(EpochSampler):
    """Repeat the batches of another sampler's first epoch in every epoch; their views still differ.

    Example:
        >>> sampler = FixedBatches(RandomBatchSampler(num_samples=10, batch_size=5))
        >>> first = list(sampler)
        >>> sampler.set_epoch(1)
        >>> list(sampler) == first
        True
    """

    def __init__(self, sampler: EpochSampler) -> None:
        self.__dict__.update(vars(sampler))
        self.drawn = sampler.draw(sampler.generator())

    def draw(self, generator: torch.Generator) -> Tensor:
        """Return the same indices as in the first epoch."""
        return self.drawn


def members_by_class(labels: Tensor, num_classes: int = 0) -> list[Tensor]:
    """Return the indices of each class 0 to C - 1, in ascending order; C is at least ``num_classes``.

    Example:
        >>> [members.tolist() for members in members_by_class(torch.tensor([1, 0, 1]))]
        [[1], [0, 2]]
    """
    counts = labels.bincount(minlength=num_classes)
    return list(labels.argsort(stable=True).split(counts.tolist()))


def _hash(*numbers: int) -> int:
    return int(np.random.SeedSequence(numbers).generate_state(1)[0])


def _cycle(members: Tensor, needed: int, generator: torch.Generator) -> Tensor:
    rounds = -(-needed // len(members))
    shuffled = [members[torch.randperm(len(members), generator=generator)] for _ in range(rounds)]
    return torch.cat([members[:0], *shuffled])[:needed]
