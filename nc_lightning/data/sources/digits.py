"""scikit-learn's 1,797 real 8x8 digits: single digits (10 classes) and pairs of digits (100 classes)."""

import torch
from torch import Tensor

from nc_lightning.checks import check_count, check_number
from nc_lightning.data.base import BatchOptions, LabeledDataModule, Split
from nc_lightning.data.loader import LabeledTensors
from nc_lightning.data.samplers import members_by_class
from nc_lightning.options import Unpack

_SHARES: dict[Split, float] = {"train": 0.7, "val": 0.15, "test": 0.15}


def load_digits() -> tuple[Tensor, Tensor]:
    """Return the images (1797, 1, 8, 8), float32 in [0, 1], and their labels (1797,)."""
    from sklearn.datasets import load_digits as load  # noqa: PLC0415 - heavy

    digits = load()
    return torch.from_numpy(digits.images).float().div_(16)[:, None], torch.from_numpy(digits.target).long()


def split_by_class(labels: Tensor, seed: int) -> dict[Split, Tensor]:
    """Return disjoint indices of training (70%), validation and test images (15% each), stratified by class.

    Example:
        >>> {name: len(index) for name, index in split_by_class(torch.arange(10).repeat(20), seed=0).items()}
        {'train': 140, 'val': 30, 'test': 30}
    """
    generator = torch.Generator().manual_seed(seed)
    parts: dict[Split, list[Tensor]] = {name: [] for name in _SHARES}
    for members in members_by_class(labels):
        members = members[torch.randperm(len(members), generator=generator)]
        val = round(_SHARES["val"] * len(members))
        test = round(_SHARES["test"] * len(members))
        parts["val"].append(members[:val])
        parts["test"].append(members[val : val + test])
        parts["train"].append(members[val + test :])
    return {name: torch.cat(part).sort().values for name, part in parts.items()}


class DigitsDataModule(LabeledDataModule):
    """Load single 8x8 digits, 10 classes; nothing is downloaded.

    Args:
        batch_size: Images in a batch.
        kwargs: Other arguments of `LabeledDataModule`, the base of all data modules.

    Source:
        scikit-learn's ``load_digits``: Alpaydin, Kaynak (1998), Optical recognition of handwritten digits.

    Example:
        >>> data = DigitsDataModule(batch_size=100)
        >>> data.num_classes, data.input_shape
        (10, (1, 8, 8))
        >>> data.setup()
        >>> x, labels = next(iter(data.train_dataloader()))
        >>> x.shape, labels.bincount().tolist()
        (torch.Size([100, 1, 8, 8]), [10, 10, 10, 10, 10, 10, 10, 10, 10, 10])
    """

    num_classes = 10
    input_shape = (1, 8, 8)

    def __init__(self, batch_size: int = 250, **kwargs: Unpack[BatchOptions]) -> None:
        super().__init__(batch_size, **kwargs)

    def make_splits(self) -> dict[Split, LabeledTensors]:
        """Split the digits 70 : 15 : 15, class by class."""
        images, labels = load_digits()
        parts = split_by_class(labels, self.seed)
        self.origins = {name: f"scikit-learn's digits, {_SHARES[name]:.0%} of each class" for name in parts}
        return {name: LabeledTensors(images[index], labels[index]) for name, index in parts.items()}


class DigitPairsDataModule(LabeledDataModule):
    """Build pairs of digits, 8x16, labeled by the two-digit number: 100 classes with truly hard negatives.

    Classes that share a digit share half their pixels. Training, validation and test pairs are made from disjoint
    digits. With balanced batches, HSCL reaches neural collapse here while SCL stays in dimensional collapse. Use
    `SimCLR` without flips here, because a flip exchanges the digits.

    Args:
        batch_size: Pairs in a batch.
        pairs_per_class: Training pairs of each class; validation and test have a fifth as many.
        imbalance: Ratio of the large classes, the ten numbers below 10, to the small ones, which have fewer training
            pairs by this factor, but at least 2. Validation and test have a fifth of a small class.
        kwargs: Other arguments of `LabeledDataModule`, the base of all data modules.

    Example:
        >>> data = DigitPairsDataModule(pairs_per_class=10)
        >>> data.num_classes, data.input_shape
        (100, (1, 8, 16))
        >>> data = DigitPairsDataModule(pairs_per_class=20, imbalance=10, batches="stratified")
        >>> data.setup()
        >>> data.num_training_samples
        380
    """

    num_classes = 100
    input_shape = (1, 8, 16)

    def __init__(
        self, batch_size: int = 500, pairs_per_class: int = 100, imbalance: float = 1.0, **kwargs: Unpack[BatchOptions]
    ) -> None:
        super().__init__(batch_size, **kwargs)
        check_count("pairs_per_class", pairs_per_class, at_least=2)
        check_number("imbalance", imbalance, at_least=1)
        self.pairs_per_class = pairs_per_class
        self.imbalance = imbalance

    def make_splits(self) -> dict[Split, LabeledTensors]:
        """Split the single digits first, then pair them within each split."""
        images, labels = load_digits()
        generator = torch.Generator().manual_seed(self.seed)
        small = max(2, round(self.pairs_per_class / self.imbalance))
        train = torch.tensor([self.pairs_per_class] * 10 + [small] * 90)
        held_out = torch.full((100,), max(1, small // 5))
        sizes: dict[Split, Tensor] = {"train": train, "val": held_out, "test": held_out}
        parts = split_by_class(labels, self.seed)
        self.origins = {name: f"pairs of {_SHARES[name]:.0%} of scikit-learn's digits" for name in parts}
        return {name: self._pair(images[index], labels[index], sizes[name], generator) for name, index in parts.items()}

    @staticmethod
    def _pair(images: Tensor, labels: Tensor, per_class: Tensor, generator: torch.Generator) -> LabeledTensors:
        numbers = torch.arange(100).repeat_interleave(per_class)

        def draw(digits: Tensor) -> Tensor:
            members = members_by_class(labels)
            sizes = torch.tensor([len(m) for m in members])
            pick = (torch.rand(len(digits), generator=generator) * sizes[digits]).long()
            padded = torch.nn.utils.rnn.pad_sequence(members, batch_first=True)
            return images[padded[digits, pick]]

        return LabeledTensors(torch.cat([draw(numbers // 10), draw(numbers % 10)], dim=3), numbers)
