"""Use HSCL in your own Lightning pipeline, with your encoder, loader and Trainer.

python examples/drop_in.py [EPOCHS]
"""

import sys

import torch
from lightning.pytorch import Trainer
from torch.utils.data import DataLoader, TensorDataset

from nc_lightning import HSCL
from nc_lightning.callbacks import GeometryMonitor
from nc_lightning.data import load_digits


def main(max_epochs: int = 5) -> dict[str, float]:
    """Train for a few epochs, and return the geometry of the training set."""
    encoder = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, 256), torch.nn.ReLU())
    model = HSCL(encoder=encoder, projector=torch.nn.Linear(256, 9), num_classes=10, beta=5.0)
    loader = DataLoader(TensorDataset(*load_digits()), batch_size=256, shuffle=True, drop_last=True)
    monitor = GeometryMonitor(every_n_epochs=5)
    trainer = Trainer(max_epochs=max_epochs, callbacks=[monitor], logger=False, enable_checkpointing=False)
    trainer.fit(model, loader)
    geometry = monitor.results["train"]
    print(f"effective rank {geometry['effective_rank']:.2f} of 9, NC1 {geometry['nc1']:.3f}")
    return geometry


if __name__ == "__main__":
    main(*(int(argument) for argument in sys.argv[1:2]))
