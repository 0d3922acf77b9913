"""Strategies of Lightning that a run can use, including FSDP2."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from lightning.pytorch.strategies import ModelParallelStrategy, Strategy
from torch import nn
from torch.optim import Optimizer

if TYPE_CHECKING:
    from torch.distributed.device_mesh import DeviceMesh


class FSDP2Strategy(ModelParallelStrategy):
    """Shard weights, gradients and optimizer state over all processes (torch's ``fully_shard``).

    Batches and results are those of ``ddp``. A checkpoint is a single file of unsharded tensors, so that a run can
    resume with another strategy or number of processes.

    The module shards itself in ``configure_model``; the objectives shard encoder and projector as one unit each.

    Example:
        >>> from lightning.pytorch import Trainer
        >>> trainer = Trainer(accelerator="cpu", devices=2, strategy=FSDP2Strategy(), logger=False)
    """

    def __init__(self) -> None:
        super().__init__(tensor_parallel_size=1, save_distributed_checkpoint=False)

    def setup_environment(self) -> None:
        """Make one data-parallel group of all processes, and synchronize BatchNorm before weights are sharded.

        On GPUs the plugin that synchronizes BatchNorm replaces its modules.
        """
        self._data_parallel_size = self.num_nodes * self.num_processes
        super().setup_environment()
        if self._layer_sync is not None:
            self.model = self._layer_sync.apply(self._connected_model())

    def load_checkpoint(self, checkpoint_path: str | Path, weights_only: bool | None = None) -> dict[str, Any]:
        """Load a checkpoint of any strategy; only plain types and tensors, so that no code runs."""
        from torch.distributed.checkpoint.state_dict import (  # noqa: PLC0415 - heavy, and not in every torch
            StateDictOptions,
            set_model_state_dict,
            set_optimizer_state_dict,
        )

        model = self._connected_model()
        checkpoint: dict[str, Any] = torch.load(
            self.broadcast(checkpoint_path), mmap=True, map_location="cpu", weights_only=True
        )
        options = StateDictOptions(full_state_dict=True, broadcast_from_rank0=True)
        set_model_state_dict(model, checkpoint["state_dict"], options=options)
        for optimizer, state in zip(self.optimizers, checkpoint.get("optimizer_states", []), strict=False):
            set_optimizer_state_dict(model, optimizer, _by_name(state, optimizer, model), options=options)
        return checkpoint

    def _connected_model(self) -> nn.Module:
        if self.model is None:
            raise RuntimeError("FSDP2Strategy: got no model, expected one from a Trainer; run it with Trainer.fit")
        return self.model


def _by_name(state: dict[str, Any], optimizer: Optimizer, model: nn.Module) -> dict[str, Any]:
    """Replace the indices of parameters by their names, matched by position in the groups as in torch.

    Lightning would use them as indices into the model's parameters, which is wrong with more than one group.
    """
    names = {parameter: name for name, parameter in model.named_parameters()}
    named = {
        number: names[parameter]
        for saved, own in zip(state["param_groups"], optimizer.param_groups, strict=True)
        for number, parameter in zip(saved["params"], own["params"], strict=True)
    }
    groups = [{**group, "params": [named[number] for number in group["params"]]} for group in state["param_groups"]]
    return {"state": {named[number]: values for number, values in state["state"].items()}, "param_groups": groups}


def shard(device_mesh: "DeviceMesh", *modules: nn.Module) -> None:
    """Shard each module as one unit over the data-parallel processes; its weights are gathered while it runs."""
    from torch.distributed.fsdp import fully_shard  # noqa: PLC0415 - not in every torch

    for module in modules:
        fully_shard(module, mesh=device_mesh["data_parallel"], reshard_after_forward=True)


def check_strategy(strategy: str | Strategy, argument: str = "strategy") -> None:
    """Refuse strategies with which callbacks cannot call the module, or gradients are not averaged.

    FSDP 1 and DeepSpeed keep parameters in flat buffers that only their wrapper of the module can gather, but geometry
    measurements call the module itself. Lightning's `ModelParallelStrategy` uses the processes of a machine for tensor
    parallelism by default, which the objectives do not support.

    Args:
        strategy: Strategy, or its name.
        argument: Name of the setting in the message.

    Raises:
        ValueError: If the strategy is FSDP 1, DeepSpeed or a plain `ModelParallelStrategy`.

    Example:
        >>> check_strategy("ddp")
    """
    name = strategy if isinstance(strategy, str) else type(strategy).__name__
    refused = ("fsdp", "deepspeed", "modelparallel", "model_parallel")
    if name.lower().startswith(refused) and not isinstance(strategy, FSDP2Strategy):
        raise ValueError(
            f"{argument}: got {name}, expected ddp, or nc_lightning.strategies.FSDP2Strategy (fsdp.yaml) for sharded "
            "weights"
        )
