"""The paper's data model: first a latent class, then an input that depends only on the class."""

import torch

from nc_lightning.checks import check_count, check_number
from nc_lightning.data.base import Batches, LabeledDataModule, Split
from nc_lightning.data.loader import LabeledTensors


class LatentClassDataModule(LabeledDataModule):
    """Draw inputs on the fly: a uniform class, then its prototype plus isotropic Gaussian noise.

    Inputs of one class are independent given the class, which is what the theorems on SCL and UCL assume; the number of
    classes is arbitrary. Prototypes are random unit vectors.

    Args:
        num_classes: Number of latent classes C >= 2.
        input_dim: Dimension of an input.
        samples_per_class: Training samples of each class; validation and test have a fifth as many.
        noise: Standard deviation of the noise around a prototype, over all dimensions; the prototype has norm 1.
        batch_size: Inputs in a batch; None for eight of each class in it.
        batches: Kind of batches, ``balanced`` or ``random``.
        seed: Seed of the data and of the order of batches.
        classes_per_batch: Number of different classes in a balanced batch; None for all.

    Raises:
        ValueError: If an argument is out of its range.

    Source:
        arXiv 2311.05139: latent classes, positives conditionally independent given the class.

    Example:
        >>> data = LatentClassDataModule(num_classes=3, input_dim=16)
        >>> data.setup()
        >>> data.input_shape, next(iter(data.train_dataloader()))[0].shape
        ((16,), torch.Size([24, 16]))
    """

    def __init__(
        self,
        num_classes: int = 10,
        input_dim: int = 32,
        samples_per_class: int = 100,
        noise: float = 0.5,
        batch_size: int | None = None,
        batches: Batches = "balanced",
        seed: int = 0,
        classes_per_batch: int | None = None,
    ) -> None:
        check_count("num_classes", num_classes, at_least=2)
        check_count("input_dim", input_dim)
        check_count("samples_per_class", samples_per_class, at_least=2)
        check_number("noise", noise, at_least=0)
        default = 8 * (num_classes if classes_per_batch is None else classes_per_batch)
        super().__init__(default if batch_size is None else batch_size, batches, seed, classes_per_batch)
        self.num_classes = num_classes
        self.input_shape = (input_dim,)
        self.samples_per_class = samples_per_class
        self.noise = noise

    def make_splits(self) -> dict[Split, LabeledTensors]:
        """Draw the prototypes, then every split around these prototypes."""
        generator = torch.Generator().manual_seed(self.seed)
        dim = self.input_shape[0]
        prototypes = torch.nn.functional.normalize(torch.randn(self.num_classes, dim, generator=generator))
        held_out = max(1, self.samples_per_class // 5)
        sizes: dict[Split, int] = {"train": self.samples_per_class, "val": held_out, "test": held_out}
        splits: dict[Split, LabeledTensors] = {}
        self.origins = dict.fromkeys(sizes, f"drawn around random prototypes, seed {self.seed}")
        for name, per_class in sizes.items():
            labels = torch.arange(self.num_classes).repeat_interleave(per_class)
            noise = torch.randn(len(labels), dim, generator=generator) * (self.noise / dim**0.5)
            splits[name] = LabeledTensors(prototypes[labels] + noise, labels)
        return splits
