"""Thin adapters to lightning-bolts, whose classes derive from ``pytorch_lightning`` instead of ``lightning``.

Its optimizers and schedulers need no adapter: use LARS and LinearWarmupCosineAnnealingLR by their own class paths.
Requires the extra ``bolts``.
"""

import warnings
from typing import Any

from lightning.pytorch import Callback, LightningDataModule, LightningModule, Trainer
from torch import Tensor

from nc_lightning.batch import read_batch


class SSLOnlineEvaluator(Callback):
    """Train the online evaluator of lightning-bolts, an MLP on detached features, alongside the module.

    Logs ``online_train_acc``, ``online_train_loss``, ``online_val_acc`` and ``online_val_loss``. Works only with one
    process; `OnlineLinearProbe` has no such limit.

    Args:
        z_dim: Dimension of the module's features.
        drop_p: Dropout probability.
        hidden_dim: Width of the hidden layer; None for a linear classifier.
        num_classes: Number of classes C; None for that of the data module.

    Raises:
        ImportError: If lightning-bolts is not installed.
        ValueError: If there are several processes.
    """

    def __init__(
        self, z_dim: int, drop_p: float = 0.2, hidden_dim: int | None = None, num_classes: int | None = None
    ) -> None:
        bolts = _import("callbacks")
        self.evaluator = bolts.SSLOnlineEvaluator(z_dim, drop_p, hidden_dim, num_classes, dataset="")

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Let the wrapped evaluator determine the number of classes."""
        if trainer.world_size > 1:
            raise ValueError(
                f"SSLOnlineEvaluator: got {trainer.world_size} processes, expected 1; use OnlineLinearProbe with more"
            )
        self.evaluator.setup(trainer, pl_module, stage)

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Let the wrapped evaluator create its classifier."""
        self.evaluator.on_fit_start(trainer, pl_module)

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Train the wrapped evaluator."""
        self.evaluator.on_train_batch_end(trainer, pl_module, outputs, _last_view(batch), batch_idx)

    def on_validation_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Run the wrapped evaluator if it has a classifier, which is created only for training."""
        if self.evaluator.online_evaluator is not None:
            self.evaluator.on_validation_batch_end(
                trainer, pl_module, outputs, _last_view(batch), batch_idx, dataloader_idx
            )

    def state_dict(self) -> dict[str, Any]:
        """Return the state of classifier and optimizer, if they exist."""
        state: dict[str, Any] = {} if self.evaluator.optimizer is None else self.evaluator.state_dict()
        return state

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore classifier and optimizer."""
        if state_dict:
            self.evaluator.load_state_dict(state_dict)


class CIFAR10DataModule(LightningDataModule):
    """Wrap lightning-bolts' data module for CIFAR-10; `nc_lightning.data.CIFAR10DataModule` is faster.

    Args:
        data_dir: Folder of torchvision's ``cifar-10-batches-py``.
        download: Whether to download the data set if it is missing.
        val_split: Share of the training set used for validation.
        normalize: Whether to standardize the channels.
        batch_size: Images in a batch.
        num_workers: Number of worker processes that load batches.
        seed: Seed of the split.

    Raises:
        ImportError: If lightning-bolts is not installed.
    """

    num_classes = 10
    input_shape = (3, 32, 32)

    def __init__(
        self,
        data_dir: str,
        download: bool = False,
        val_split: float = 0.2,
        normalize: bool = True,
        batch_size: int = 256,
        num_workers: int = 0,
        seed: int = 0,
    ) -> None:
        super().__init__()
        bolts = _import("datamodules")
        self.data = bolts.CIFAR10DataModule(
            data_dir, val_split, num_workers, normalize, batch_size, seed, shuffle=True, drop_last=True
        )
        self.download = download

    def prepare_data(self) -> None:
        """Download the data set if requested."""
        if self.download:
            self.data.prepare_data()

    def setup(self, stage: str | None = None) -> None:
        """Make the splits."""
        self.data.setup("fit" if stage == "validate" else None if stage == "predict" else stage)

    def train_dataloader(self) -> Any:
        """Return shuffled training batches."""
        return self.data.train_dataloader()

    def val_dataloader(self) -> Any:
        """Return the validation set in order."""
        return self.data.val_dataloader()

    def test_dataloader(self) -> Any:
        """Return the test set in order."""
        return self.data.test_dataloader()


def _last_view(batch: Any) -> tuple[tuple[Tensor], Tensor]:
    """Return a batch as lightning-bolts expects it: a tuple of inputs, of them the last is used, and labels."""
    views, labels = read_batch(batch)
    return (views[-1],), labels


def _import(name: str) -> Any:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            import pl_bolts.callbacks  # noqa: PLC0415 - optional
            import pl_bolts.datamodules  # noqa: PLC0415 - optional
    except ImportError as error:
        raise ImportError(
            "lightning-bolts: got none that can be imported; install it by pip install 'nc-lightning[bolts]'"
        ) from error
    return getattr(pl_bolts, name)
