"""Short class paths of the adapters to lightning-bolts, for configs."""

from nc_lightning.integrations.bolts import CIFAR10DataModule, SSLOnlineEvaluator

__all__ = ["CIFAR10DataModule", "SSLOnlineEvaluator"]
