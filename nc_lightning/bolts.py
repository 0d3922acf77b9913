"""The adapters to lightning-bolts by their short class paths, for configs."""

from nc_lightning.integrations.bolts import CIFAR10DataModule, SSLOnlineEvaluator

__all__ = ["CIFAR10DataModule", "SSLOnlineEvaluator"]
