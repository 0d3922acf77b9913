"""Add HSCLLoss to an existing LightningModule: three lines of this classifier are new.

python examples/loss_in_your_classifier.py [EPOCHS]
"""

import sys

import torch
from lightning.pytorch import LightningModule, Trainer
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from nc_lightning.data import load_digits
from nc_lightning.losses import HSCLLoss  # new


class Classifier(LightningModule):
    """A plain classifier of digits."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder = nn.Sequential(nn.Flatten(), nn.Linear(64, 128), nn.ReLU())
        self.classifier = nn.Linear(128, 10)
        self.contrast = HSCLLoss(beta=5.0)  # new

    def training_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> Tensor:
        """Return the loss of a batch."""
        x, labels = batch
        h = self.encoder(x)
        loss: Tensor = nn.functional.cross_entropy(self.classifier(h), labels)
        loss = loss + self.contrast(h, labels)  # new
        self.log("loss", loss, on_step=False, on_epoch=True)
        return loss

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """Return Adam."""
        return torch.optim.Adam(self.parameters())


def main(max_epochs: int = 5) -> float:
    """Train for a few epochs, and return the loss."""
    loader = DataLoader(TensorDataset(*load_digits()), batch_size=256, shuffle=True, drop_last=True)
    trainer = Trainer(max_epochs=max_epochs, logger=False, enable_checkpointing=False)
    trainer.fit(Classifier(), loader)
    loss = float(trainer.callback_metrics["loss"])
    print(f"cross-entropy and contrast: {loss:.3f}")
    return loss


if __name__ == "__main__":
    main(*(int(argument) for argument in sys.argv[1:2]))
