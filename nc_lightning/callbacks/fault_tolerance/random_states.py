"""The states of the random number generators, as part of a checkpoint."""

import random
from typing import Any

import numpy as np
import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.utilities.rank_zero import rank_zero_warn

from nc_lightning.distributed.collectives import all_gather_objects


class RandomStates(Callback):
    """Keep the states of the random number generators in checkpoints, so that a resumed run draws what it would have.

    Those of Python, NumPy, torch on the CPU and torch on the process's own GPU or other accelerator, of every process.
    They are set again when training begins, by a run that resumes another; one on another number of processes has those
    of the first on all of them, with a warning, and one on another kind of device keeps its own, with a warning. The
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
        """Note which GPU is this process's; forget the states of an earlier run."""
        self._device = trainer.strategy.root_device
        self._loaded = []

    def state_dict(self) -> dict[str, Any]:
        """Return the states of every process, in the order of their ranks."""
        return {"processes": all_gather_objects(random_states(self._device))}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take over the states that are to be set when training begins."""
        self._loaded = state_dict["processes"]

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Set the states of a run that is resumed: only now, after what is drawn on the way here."""
        self.restore(trainer.global_rank, trainer.world_size)

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Note the states that training is to go on with."""
        self._before_validation = random_states(self._device)

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Take back what the validation has drawn."""
        if self._before_validation is not None:
            set_random_states(self._before_validation, self._device)
            self._before_validation = None

    def restore(self, rank: int, world_size: int) -> None:
        """Set the states that were loaded, if any: this process's, or the first one's on another number of them."""
        if not self._loaded:
            return
        if len(self._loaded) == world_size:
            states = self._loaded[rank]
        else:
            states = self._loaded[0]
            rank_zero_warn(
                f"random states: got those of {len(self._loaded)} processes, expected {world_size}; all processes go "
                "on with those of the first"
            )
        set_random_states(states, self._device)
        self._loaded = []


def random_states(device: torch.device) -> dict[str, Any]:
    """Return the state of each generator in plain types and tensors, which load without running code."""
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
    """Set the states of `random_states`; those of another kind of device are left alone, with a warning."""
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
    """The module of a device that has a random number generator of its own, as `torch.cuda`; None of any other."""
    module = None if device.type == "cpu" else torch.get_device_module(device)
    return module if hasattr(module, "get_rng_state") else None
