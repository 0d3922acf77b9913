"""A plain PyTorch loop without Lightning, which uses only the loss, the balanced batches and the metrics.

python examples/plain_pytorch.py [EPOCHS]
"""

import sys

import torch
from torch import nn

from nc_lightning.data import ClassBalancedBatchSampler, load_digits
from nc_lightning.geometry import unit_ball
from nc_lightning.losses import HSCLLoss
from nc_lightning.metrics import NeuralCollapse


def main(epochs: int = 20) -> dict[str, float]:
    """Train for a few epochs, and return the geometry."""
    x, labels = load_digits()
    model = nn.Sequential(nn.Flatten(), nn.Linear(64, 256), nn.ReLU(), nn.Linear(256, 9))
    loss = HSCLLoss(beta=10.0, normalization="unit_ball")
    optimizer = torch.optim.Adam(model.parameters())
    batches = ClassBalancedBatchSampler(labels, batch_size=250)
    for epoch in range(epochs):
        batches.set_epoch(epoch)
        for batch in batches:
            optimizer.zero_grad()
            loss(model(x[batch]), labels[batch]).backward()
            optimizer.step()
    metric = NeuralCollapse(num_classes=10, feature_dim=9)
    with torch.no_grad():
        metric.update(unit_ball(model(x)), labels)
    geometry = {key: float(value) for key, value in metric.compute().items()}
    print(f"effective rank {geometry['effective_rank']:.2f} of 9, NC1 {geometry['nc1']:.3f}")
    return geometry


if __name__ == "__main__":
    main(*(int(argument) for argument in sys.argv[1:2]))
