"""What the embedded data sets share: splits in memory, balanced or random batches, deterministic evaluation."""

from abc import abstractmethod
from typing import Literal

from lightning.pytorch import LightningDataModule
from torch import Tensor
from torch.utils.data import BatchSampler, DataLoader, Dataset, Sampler, SequentialSampler

from nc_lightning.data.samplers import ClassBalancedBatchSampler, RandomBatchSampler
from nc_lightning.geometry.checks import check_choice, check_count

Batches = Literal["balanced", "random"]
Split = Literal["train", "val", "test"]


class LabelledTensors(Dataset[tuple[Tensor, Tensor]]):
    """Inputs and labels in memory; indexed by a list, a whole batch is one indexing operation."""

    def __init__(self, x: Tensor, labels: Tensor) -> None:
        self.x, self.labels = x, labels

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int | list[int]) -> tuple[Tensor, Tensor]:
        return self.x[index], self.labels[index]


class InMemoryDataModule(LightningDataModule):
    """Base of the data sets that come with the package.

    A subclass knows ``num_classes`` and ``input_shape`` before `setup`, and makes its splits in `make_splits`.

    Args:
        batch_size: Images in a training batch; evaluation uses the same size.
        batches: ``balanced`` holds every class equally often in each batch, as the theorems assume; ``random``
            shuffles.
        seed: Of the splits and of the order of batches; the network has its own, ``seed_everything``.

    Raises:
        ValueError: If an argument is out of its range.
    """

    num_classes: int
    input_shape: tuple[int, ...]

    def __init__(self, batch_size: int, batches: Batches = "balanced", seed: int = 0) -> None:
        super().__init__()
        check_count("batch_size", batch_size)
        check_count("seed", seed, at_least=0)
        check_choice("batches", batches, Batches)
        self.batch_size = batch_size
        self.batches = batches
        self.seed = seed
        self._splits: dict[Split, LabelledTensors] = {}

    @abstractmethod
    def make_splits(self) -> dict[Split, LabelledTensors]:
        """Return the training, validation and test sets, the same ones for the same seed."""

    def setup(self, stage: str | None = None) -> None:
        """Make the splits, once."""
        if not self._splits:
            self._splits = self.make_splits()

    def _loader(self, split: Split, sampler: Sampler[list[int]] | None = None) -> DataLoader[tuple[Tensor, Tensor]]:
        dataset = self._splits[split]
        if sampler is None:
            sampler = BatchSampler(SequentialSampler(dataset), self.batch_size, drop_last=False)
        # The sampler yields whole batches of indices, so that the loader neither batches nor collates.
        return DataLoader(dataset, sampler=sampler, batch_size=None)

    def train_dataloader(self) -> DataLoader[tuple[Tensor, Tensor]]:
        """Training batches, balanced or random, in an order that depends on the seed and the epoch alone."""
        labels = self._splits["train"].labels
        sampler: Sampler[list[int]]
        if self.batches == "balanced":
            sampler = ClassBalancedBatchSampler(labels, self.batch_size, self.seed)
        else:
            sampler = RandomBatchSampler(len(labels), self.batch_size, self.seed)
        return self._loader("train", sampler)

    def geometry_dataloader(self) -> DataLoader[tuple[Tensor, Tensor]]:
        """The training set without augmentation, each image once, in a fixed order: where geometry is measured."""
        return self._loader("train")

    def predict_dataloader(self) -> DataLoader[tuple[Tensor, Tensor]]:
        """The training set, as for geometry."""
        return self._loader("train")

    def val_dataloader(self) -> DataLoader[tuple[Tensor, Tensor]]:
        """The validation set in a fixed order."""
        return self._loader("val")

    def test_dataloader(self) -> DataLoader[tuple[Tensor, Tensor]]:
        """The test set in a fixed order."""
        return self._loader("test")
