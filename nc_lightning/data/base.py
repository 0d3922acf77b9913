"""Base of all data modules: splits, balanced or random batches, deterministic evaluation."""

from abc import abstractmethod
from collections.abc import Sequence
from typing import Any, Literal

import torch
from lightning.pytorch import LightningDataModule
from lightning.pytorch.trainer.states import TrainerStatus
from lightning.pytorch.utilities.rank_zero import rank_zero_info, rank_zero_warn
from torch import Tensor
from typing_extensions import TypedDict

from nc_lightning.checks import check_choice, check_count
from nc_lightning.data.augmentation import SimCLR
from nc_lightning.data.loader import BatchLoader
from nc_lightning.data.preprocess import Preprocess
from nc_lightning.data.recipes import check_recipe
from nc_lightning.data.samplers import (
    ClassBalancedBatchSampler,
    EpochSampler,
    FixedBatches,
    RandomBatchSampler,
    StratifiedBatchSampler,
)
from nc_lightning.data.summary import PassedOver, summarize
from nc_lightning.data.views import Augmentation, Views
from nc_lightning.distributed.collectives import own_batches, rank_and_world_size
from nc_lightning.options import SignatureWithOptions

Batches = Literal["balanced", "random", "stratified"]
Split = Literal["train", "val", "test"]
SPLITS: tuple[Split, ...] = ("train", "val", "test")


class BatchOptions(TypedDict, total=False):
    """Arguments of `LabeledDataModule`, except the batch size."""

    batches: Batches
    seed: int
    classes_per_batch: int | None
    views: int
    augmentation: Augmentation | None


class LabeledDataModule(LightningDataModule):
    """Base of all data modules in this package.

    A subclass sets ``num_classes`` and ``input_shape`` before `setup`, and makes its splits in `make_splits`.

    Args:
        batch_size: Inputs in a training batch of each process; evaluation uses the same size.
        batches: ``balanced`` has the same number of each class in every batch, as the theorems assume; ``stratified``
            has each class in proportion to the data set; ``random`` shuffles.
        seed: Seed of the splits, the order of batches and the augmentation; ``seed_everything`` seeds the network.
        classes_per_batch: Number of different classes in a balanced batch; None for all.
        views: Number of views of each input in training.
        augmentation: Transform that makes a view, such as `SimCLR`; None to leave inputs unchanged.

    Attributes:
        mean: Mean (channels,) of the training images in [0, 1], known after `setup`; None if inputs are not images. A
            model trained on other data standardizes with its own mean, see `preprocess`.
        std: Standard deviation (channels,) of the training images.
        origins: Origin of the inputs of each split, for the summary.
        passed_over: Counts of skipped files and arrays, for the summary.
        predict_splits: Splits of `predict_dataloader`; None for the training set. `PredictionWriter` sets it.

    Raises:
        ValueError: If an argument is out of its range, or, at `setup`, if the augmentation normalizes images (the data
            module does that itself).
    """

    num_classes: int
    input_shape: tuple[int, ...]
    class_names: list[str] | None = None
    __signature__ = SignatureWithOptions()

    def __init__(
        self,
        batch_size: int,
        batches: Batches = "balanced",
        seed: int = 0,
        classes_per_batch: int | None = None,
        views: int = 1,
        augmentation: Augmentation | None = None,
    ) -> None:
        super().__init__()
        check_count("batch_size", batch_size)
        check_count("seed", seed, at_least=0)
        check_choice("batches", batches, Batches)
        if classes_per_batch is not None:
            check_count("classes_per_batch", classes_per_batch, at_least=2)
            if batches != "balanced":
                raise ValueError(f"classes_per_batch: got {classes_per_batch} with {batches} batches, expected None")
        check_count("views", views)
        self.batch_size = batch_size
        self.batches = batches
        self.seed = seed
        self.classes_per_batch = classes_per_batch
        self.views = views
        self.augmentation = augmentation
        self.mean: Tensor | None = None
        self.std: Tensor | None = None
        self.num_workers = 0
        self.origins: dict[Split, str] = {}
        self.passed_over = PassedOver()
        self.predict_splits: Sequence[Split] | None = None
        self._splits: dict[Split, Any] = {}

    @abstractmethod
    def make_splits(self) -> dict[Split, Any]:
        """Return the training, validation and test sets; the same seed gives the same sets."""

    def setup(self, stage: str | None = None) -> None:
        """Make the splits once, and log their summary."""
        if not self._splits:
            self._splits = self.make_splits()
            self._splits = {split: self._splits[split] for split in SPLITS}
            is_image = len(self.input_shape) == 3
            if is_image and self.augmentation is not None and type(self.augmentation) is not SimCLR:
                check_recipe(self.augmentation, self.input_shape)
            rank_zero_info(self.summary())
            if self.views > 1 and self.augmentation is None:
                rank_zero_warn(
                    f"views: got {self.views} without augmentation, so all views of an input are identical; "
                    "set augmentation, or views to 1"
                )

    def summary(self) -> str:
        """Return a few lines on the classes, the size and origin of each split, and the skipped inputs."""
        names = [self.class_name(number) for number in range(self.num_classes)]
        return summarize(self._splits, names, self.origins, self.passed_over)

    def __str__(self) -> str:
        return self.summary() if self._splits else super().__str__()

    def class_name(self, number: int) -> str | int:
        """Return the name of a class if it has one, else its label in the data."""
        return number if self.class_names is None else self.class_names[number]

    def names_or_labels(self) -> list[str | int] | None:
        """Return `class_name` of each class, known after `setup`; None for unlabeled inputs."""
        if int(self._splits["train"].labels.min()) < 0:
            return None
        return [self.class_name(number) for number in range(self.num_classes)]

    def preprocess(self) -> Preprocess:
        """Return the preprocessing of images for the encoder, with the mean and deviation known after `setup`.

        While a Trainer runs, they are those that its model was trained with, if it knows them.
        """
        if self.trainer is not None and self.trainer.state.status == TrainerStatus.RUNNING:
            trained = getattr(self.trainer.lightning_module, "preprocess", None)
            if isinstance(trained, Preprocess) and trained.known:
                return Preprocess(trained.mean, trained.std)
        return Preprocess(self.mean, self.std)

    def class_counts(self) -> list[int] | None:
        """Return the training views of each class, known after `setup`; None if batches hold classes equally often."""
        labels = self._splits["train"].labels
        if self.batches == "balanced" or int(labels.min()) < 0:
            return None
        counts: list[int] = labels.bincount(minlength=self.num_classes).tolist()
        return None if min(counts) == max(counts) else [self.views * count for count in counts]

    @property
    def num_training_samples(self) -> int:
        """Return the number of inputs in the training set, known after `setup`."""
        return len(self._splits["train"])

    def train_dataloader(self) -> BatchLoader:
        """Return the training batches, in an order that depends only on the seed and the epoch."""
        sampler = self._sampler(self._splits["train"].labels.cpu())
        if repeated := sampler.repeated():
            rank_zero_warn(repeated)
        if getattr(self.trainer, "overfit_batches", 0):
            sampler = FixedBatches(sampler)
        return self._loader("train", sampler, training=True)

    def geometry_dataloader(self) -> BatchLoader:
        """Return the training set without augmentation, each input once, in a fixed order, to measure geometry on."""
        return self._evaluation_loader("train")

    def predict_dataloader(self) -> BatchLoader | list[BatchLoader]:
        """Return the training set, or each of the `predict_splits`, in a fixed order and without augmentation."""
        if self.predict_splits is None:
            return self.geometry_dataloader()
        return [self._evaluation_loader(split) for split in self.predict_splits]

    def val_dataloader(self) -> BatchLoader:
        """Return the validation set in a fixed order."""
        return self._evaluation_loader("val")

    def test_dataloader(self) -> BatchLoader:
        """Return the test set in a fixed order."""
        return self._evaluation_loader("test")

    def _sampler(self, labels: Tensor) -> EpochSampler:
        if self.batches == "balanced":
            return ClassBalancedBatchSampler(labels, self.batch_size, self.seed, self.classes_per_batch)
        if self.batches == "stratified":
            return StratifiedBatchSampler(labels, self.batch_size, self.seed)
        return RandomBatchSampler(len(labels), self.batch_size, self.seed)

    def _evaluation_loader(self, split: Split) -> BatchLoader:
        count, (_, replicas) = len(self._splits[split]), rank_and_world_size()
        if count < replicas:
            raise ValueError(f"data: got {count} {split} inputs, expected one for each of {replicas} processes")
        return self._loader(split, own_batches(range(count), self.batch_size), training=False)

    def _loader(self, split: Split, sampler: EpochSampler | Sequence[list[int]], training: bool) -> BatchLoader:
        count, augmentation = (self.views, self.augmentation) if training else (1, None)
        preprocess = self.preprocess()
        views = Views(count, augmentation, preprocess.mean, preprocess.std)
        strategy = getattr(self.trainer, "strategy", None)
        device = torch.device("cpu") if strategy is None else strategy.root_device
        return BatchLoader(self._splits[split], sampler, views, device, self.num_workers)
