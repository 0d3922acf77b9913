"""Random number generators whose states are part of a checkpoint."""

import random
from typing import Any

import numpy as np
import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.utilities.rank_zero import rank_zero_warn

from nc_lightning.distributed.collectives import all_gather_objects


class RandomStates(Callback):
    """Save the states of the random generators in checkpoints, so that a resumed run draws what it would have drawn.

    The states are those of Python, NumPy, torch on the CPU and torch on the process's accelerator, for every process. A
    resumed run restores them when training starts. With another number of processes all of them get the states of rank
    0, with a warning; on another kind of device the generator of the device is left as it is, with a warning. The
    states are restored after each validation, so that training does not depend on it: a run resumed from a checkpoint
    saved before a validation skips that validation.

    Example:
        >>> states = RandomStates()
        >>> saved = states.state_dict()
        >>> first = torch.rand(1)
        >>> states.load_state_dict(saved)
        >>> states.restore(rank=0, world_size=1)
        >>> bool(torch.rand(1) == first)
        True
    """

    def __init__(self) -> None:
        self._device = torch.device("cpu")
        self._loaded: list[dict[str, Any]] = []
        self._before_validation: dict[str, Any] | None = None

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Note the device of this process; drop the states of an earlier run."""
        self._device = trainer.strategy.root_device
        self._loaded = []

    def state_dict(self) -> dict[str, Any]:
        """Return the states of every process, in the order of their ranks."""
        return {"processes": all_gather_objects(random_states(self._device))}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Keep the states that are restored when training starts."""
        self._loaded = state_dict["processes"]

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Restore the states of a resumed run: only now, after setup has drawn its random numbers."""
        self.restore(trainer.global_rank, trainer.world_size)

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Save the states before validation draws from the generators."""
        self._before_validation = random_states(self._device)

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Restore the states from before the validation."""
        if self._before_validation is not None:
            set_random_states(self._before_validation, self._device)
            self._before_validation = None

    def restore(self, rank: int, world_size: int) -> None:
        """Restore loaded states, if any: those of this rank, or of rank 0 if the number of processes differs."""
        if not self._loaded:
            return
        if len(self._loaded) == world_size:
            states = self._loaded[rank]
        else:
            states = self._loaded[0]
            rank_zero_warn(
                f"random states: got those of {len(self._loaded)} processes, expected {world_size}; all processes "
                "continue with those of rank 0"
            )
        set_random_states(states, self._device)
        self._loaded = []


def random_states(device: torch.device) -> dict[str, Any]:
    """Return the state of each generator as plain types and tensors, which load without running code."""
    of_numpy = np.random.get_state(legacy=False)  # noqa: NPY002, the generator that others draw from
    states = {
        "python": random.getstate(),
        "numpy": {**of_numpy, "state": {**of_numpy["state"], "key": of_numpy["state"]["key"].tolist()}},
        "torch": torch.get_rng_state(),
    }
    if (module := _module_with_generator(device)) is not None:
        states[device.type] = module.get_rng_state(device)
    return states


def set_random_states(states: dict[str, Any], device: torch.device) -> None:
    """Restore the states of `random_states`; those of another kind of device are ignored, with a warning."""
    random.setstate(states["python"])
    np.random.set_state(states["numpy"])  # noqa: NPY002
    torch.set_rng_state(states["torch"])
    module = _module_with_generator(device)
    (saved,) = states.keys() - {"python", "numpy", "torch"} or {"cpu"}
    if saved != ("cpu" if module is None else device.type):
        rank_zero_warn(
            f"random states: got those of a run on {saved}, expected {device.type}; this run draws other numbers on "
            "its device"
        )
    elif module is not None:
        module.set_rng_state(states[saved], device)


def _module_with_generator(device: torch.device) -> Any:
    """Return the torch module of a device with its own random generator, such as `torch.cuda`; None otherwise."""
    module = None if device.type == "cpu" else torch.get_device_module(device)
    return module if hasattr(module, "get_rng_state") else None
