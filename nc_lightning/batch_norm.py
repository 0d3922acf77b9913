"""Short class path of `BatchNormSync`, for configs."""

from nc_lightning.distributed.batch_norm import BatchNormSync

__all__ = ["BatchNormSync"]
