"""The states of the random number generators, as part of a checkpoint."""

import random
from typing import Any

import numpy as np
import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.utilities.rank_zero import rank_zero_warn

from nc_lightning.processes import of_all_processes


class RandomStates(Callback):
    """Keep the states of the random number generators in checkpoints, so that a resumed run draws what it would have.

    Those of Python, NumPy, torch on the CPU and torch on the process's own GPU, of every process. They are set again
    when training begins, by a run that resumes another; one on another number of processes has those of the first on
    all of them, with a warning. What a validation draws during training is taken back: training is the same with it as
    without, as a run may resume a checkpoint of before a validation, which Lightning then leaves out.

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
        return {"processes": of_all_processes(_states(self._device))}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take over the states that are to be set when training begins."""
        self._loaded = state_dict["processes"]

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Set the states of a run that is resumed: only now, after what is drawn on the way here."""
        self.restore(trainer.global_rank, trainer.world_size)

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Note the states that training is to go on with."""
        self._before_validation = _states(self._device)

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Take back what the validation has drawn."""
        if self._before_validation is not None:
            _set(self._before_validation, self._device)
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
        kinds = "cuda" if "cuda" in states else "cpu", self._device.type
        if kinds[0] != kinds[1] and "cuda" in kinds:
            rank_zero_warn(
                f"random states: got a checkpoint from {kinds[0]} on {kinds[1]}, where it draws other numbers"
            )
        _set(states, self._device)
        self._loaded = []


def _states(device: torch.device) -> dict[str, Any]:
    """The state of each generator in plain types and tensors, which load without running code."""
    of_numpy = np.random.get_state(legacy=False)  # noqa: NPY002, the generator that others draw from
    return {
        "python": random.getstate(),
        "numpy": {**of_numpy, "state": {**of_numpy["state"], "key": of_numpy["state"]["key"].tolist()}},
        "torch": torch.get_rng_state(),
        **({"cuda": torch.cuda.get_rng_state(device)} if device.type == "cuda" else {}),
    }


def _set(states: dict[str, Any], device: torch.device) -> None:
    random.setstate(states["python"])
    np.random.set_state(states["numpy"])  # noqa: NPY002
    torch.set_rng_state(states["torch"])
    if device.type == "cuda" and "cuda" in states:
        torch.cuda.set_rng_state(states["cuda"], device)
