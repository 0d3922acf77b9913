"""`BatchNormSync` by its short class path, for configs."""

from nc_lightning.distributed.batch_norm import BatchNormSync

__all__ = ["BatchNormSync"]
