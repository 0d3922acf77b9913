"""Measure the geometry of any LightningModule with a linear probe: two callbacks, no change to the module.

python examples/watch_your_module.py [EPOCHS]
"""

import sys
from typing import Any

import torch
from lightning.pytorch import LightningModule, Trainer
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from nc_lightning.callbacks import GeometryMonitor, OnlineLinearProbe
from nc_lightning.data import load_digits


class Autoencoder(LightningModule):
    """An autoencoder whose forward returns features and whose steps return them with the labels, for the probe."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder = nn.Sequential(nn.Flatten(), nn.Linear(64, 128), nn.ReLU(), nn.Linear(128, 16))
        self.decoder = nn.Sequential(nn.Linear(16, 128), nn.ReLU(), nn.Linear(128, 64))

    def forward(self, x: Tensor) -> Tensor:
        """Encode."""
        features: Tensor = self.encoder(x)
        return features

    def training_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> dict[str, Any]:
        """Reconstruct."""
        x, labels = batch
        z = self(x)
        return {"loss": nn.functional.mse_loss(self.decoder(z), x.flatten(1)), "z": z.detach(), "labels": labels}

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """Return Adam."""
        return torch.optim.Adam(self.parameters())


def main(max_epochs: int = 5) -> dict[str, float]:
    """Train for a few epochs, and return the geometry of the training set."""
    loader = DataLoader(TensorDataset(*load_digits()), batch_size=256, shuffle=True, drop_last=True)
    monitor = GeometryMonitor(num_classes=10)
    trainer = Trainer(
        max_epochs=max_epochs,
        callbacks=[OnlineLinearProbe(num_classes=10), monitor],
        logger=False,
        enable_checkpointing=False,
    )
    trainer.fit(Autoencoder(), loader)
    geometry = monitor.results["train"]
    print(f"effective rank {geometry['effective_rank']:.2f} of 9, NC1 {geometry['nc1']:.2f}, NC3 {geometry['nc3']:.2f}")
    return geometry


if __name__ == "__main__":
    main(*(int(argument) for argument in sys.argv[1:2]))
