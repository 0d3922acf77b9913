"""BatchNorm over the batches of all processes, including on CPUs, which torch does not support."""

from typing import Any

import torch
import torch.distributed as dist
from lightning.pytorch.plugins import TorchSyncBatchNorm
from lightning.pytorch.plugins.layer_sync import LayerSync
from torch import Tensor, nn

from nc_lightning.distributed.collectives import rank_and_world_size
from nc_lightning.private_apis.torch import BatchNormBase


class BatchNormSync(LayerSync):
    """Trainer plugin that makes every BatchNorm normalize over the batches of all processes.

    With the statistics of its shard only, features would reveal the process of a sample, and a run on several processes
    would differ from one on a single process. With NCCL or another GPU backend, the plugin is the same as
    ``Trainer(sync_batchnorm=True)``, torch's SyncBatchNorm, which does not support CPUs.

    Example:
        >>> from lightning.pytorch import Trainer
        >>> trainer = Trainer(plugins=[BatchNormSync()], logger=False)
    """

    def apply(self, model: nn.Module) -> nn.Module:
        """Synchronize every BatchNorm of the model."""
        # Lightning calls this before it moves the model, so the device of its parameters is not known.
        if not _meets_on_cpus():
            return TorchSyncBatchNorm().apply(model)
        return _with_classes(model, _SYNCED)

    def revert(self, model: nn.Module) -> nn.Module:
        """Undo `apply`."""
        model = _with_classes(model, {synced: plain for plain, synced in _SYNCED.items()})
        by_torch = any(isinstance(module, nn.SyncBatchNorm) for module in model.modules())
        return TorchSyncBatchNorm().revert(model) if by_torch else model


def _meets_on_cpus() -> bool:
    """Check whether the backend is for CPUs, unlike ``nccl`` or ``cpu:gloo,cuda:nccl``."""
    if not (dist.is_available() and dist.is_initialized()):
        return True
    backends = {part.rpartition(":")[2] for part in str(dist.get_backend()).split(",")}
    return backends <= {"gloo", "mpi", "undefined"}


def _with_classes(model: nn.Module, classes: dict[type, type]) -> nn.Module:
    """Change the classes of modules in place, keeping their parameters, buffers and hooks."""
    for module in model.modules():
        module.__class__ = classes.get(type(module), type(module))
    return model


class _Synced(BatchNormBase):
    def forward(self, x: Tensor) -> Tensor:
        if not (self.training and rank_and_world_size()[1] > 1):
            return super().forward(x)
        self._check_input_dim(x)  # type: ignore[no-untyped-call]
        with torch.autocast(x.device.type, enabled=False):
            return self._normalize(x.to(torch.promote_types(x.dtype, torch.float32))).to(x.dtype)

    def _normalize(self, x: Tensor) -> Tensor:
        others = [dim for dim in range(x.ndim) if dim != 1]
        shape = [1, -1, *[1] * (x.ndim - 2)]
        size = x.new_full((1,), x.numel() // x.shape[1])
        total: Tensor = _Sum.apply(torch.cat([x.sum(others), size]))
        mean, count = total[:-1] / total[-1], total[-1].detach()
        centered = x - mean.view(shape)
        variance: Tensor = _Sum.apply(centered.square().sum(others)) / count
        self._remember(mean.detach(), variance.detach() * count / (count - 1).clamp(min=1))
        x = centered * (variance + self.eps).rsqrt().view(shape)
        return x if self.weight is None else x * self.weight.view(shape) + self.bias.view(shape)

    def _remember(self, mean: Tensor, variance: Tensor) -> None:
        if self.running_mean is None or self.running_var is None or self.num_batches_tracked is None:
            return
        self.num_batches_tracked += 1
        for running, new in ((self.running_mean, mean), (self.running_var, variance)):
            share = 1 / self.num_batches_tracked.to(running) if self.momentum is None else self.momentum
            running.lerp_(new.to(running), share)


class _Sum(torch.autograd.Function):
    """Sum over all processes; its gradient is the sum of the gradients of all processes."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        total = x.clone()
        dist.all_reduce(total)
        return total

    @staticmethod
    def backward(ctx: Any, grad_output: Tensor) -> Tensor:
        total = grad_output.clone()
        dist.all_reduce(total)
        return total


class _Synced1d(_Synced, nn.BatchNorm1d):
    pass


class _Synced2d(_Synced, nn.BatchNorm2d):
    pass


class _Synced3d(_Synced, nn.BatchNorm3d):
    pass


_SYNCED: dict[type, type] = {nn.BatchNorm1d: _Synced1d, nn.BatchNorm2d: _Synced2d, nn.BatchNorm3d: _Synced3d}
