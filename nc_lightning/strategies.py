"""Which strategies of Lightning a run can have, and FSDP2 as one of them."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from lightning.pytorch.strategies import ModelParallelStrategy, Strategy
from torch import nn
from torch.optim import Optimizer

if TYPE_CHECKING:
    from torch.distributed.device_mesh import DeviceMesh


class FSDP2Strategy(ModelParallelStrategy):
    """Shard weights, gradients and the optimizer's state over all processes (torch's ``fully_shard``).

    Values are those of ``ddp``, and so are the batches of each process. A checkpoint is a single file with whole
    tensors: a run can resume with another strategy or number of processes.

    The module decides what is sharded in its ``configure_model``; the objectives shard encoder and projector, each as a
    whole.

    Example:
        >>> from lightning.pytorch import Trainer
        >>> trainer = Trainer(accelerator="cpu", devices=2, strategy=FSDP2Strategy(), logger=False)
    """

    def __init__(self) -> None:
        super().__init__(tensor_parallel_size=1, save_distributed_checkpoint=False)

    def setup_environment(self) -> None:
        """Make one data-parallel group of all processes, and let BatchNorm see it before weights are sharded.

        On GPUs the plugin that synchronizes BatchNorm puts other modules in its place.
        """
        self._data_parallel_size = self.num_nodes * self.num_processes
        super().setup_environment()
        if self._layer_sync is not None:
            self.model = self._layer_sync.apply(self._connected_model())

    def load_checkpoint(self, checkpoint_path: str | Path, weights_only: bool | None = None) -> dict[str, Any]:
        """Load a checkpoint of any strategy: plain types and tensors alone, never code."""
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
            raise RuntimeError("FSDP2Strategy: got no model, expected one from a Trainer; run it by Trainer.fit")
        return self.model


def _by_name(state: dict[str, Any], optimizer: Optimizer, model: nn.Module) -> dict[str, Any]:
    """Replace the numbers of parameters by their names, matched by their places in the groups as torch does.

    Lightning takes the numbers for places among the model's parameters, which they are not with more than one group.
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
    """Shard each module as a whole over the data-parallel processes; its weights are whole only while it runs."""
    from torch.distributed.fsdp import fully_shard  # noqa: PLC0415 - not in every torch

    for module in modules:
        fully_shard(module, mesh=device_mesh["data_parallel"], reshard_after_forward=True)


def check_strategy(strategy: str | Strategy, argument: str = "strategy") -> None:
    """Refuse strategies under which callbacks cannot call the module, or gradients are not averaged.

    FSDP 1 and DeepSpeed hold parameters in flat buffers that only their own wrapper of the whole module can gather. A
    measurement of the geometry calls the module itself. Lightning's `ModelParallelStrategy` takes the processes of a
    machine for tensor parallelism by itself, which no objective knows.

    Args:
        strategy: Name of a strategy, or a strategy.
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
