"""Which devices a run may use: they are there, and of the same kind on all processes."""

import os
from datetime import timedelta
from typing import TYPE_CHECKING

from lightning.pytorch import Trainer
from lightning.pytorch.accelerators import AcceleratorRegistry
from lightning.pytorch.plugins.environments import ClusterEnvironment, LightningEnvironment

if TYPE_CHECKING:
    from torch.distributed import Store

_TIMEOUT = timedelta(minutes=30)
"""How long processes wait for each other, as in Lightning and torch."""


def check_accelerator(accelerator: str, argument: str = "accelerator") -> None:
    """Refuse the name of a kind of device of which this machine has none.

    Raises:
        ValueError: If it is none of those that are there.

    Example:
        >>> check_accelerator("auto")
        >>> check_accelerator("abacus")  # doctest: +ELLIPSIS
        Traceback (most recent call last):
        ...
        ValueError: accelerator: got abacus, expected one that this machine has: auto, ...cpu...
    """
    there = [name for name, entry in AcceleratorRegistry.items() if entry["accelerator"].is_available()]
    there = ["auto", *(["gpu"] if {"cuda", "mps"} & set(there) else []), *there]
    if accelerator not in there:
        raise ValueError(f"{argument}: got {accelerator}, expected one that this machine has: {', '.join(there)}")


def check_same_device(trainer: Trainer) -> "Store | None":
    """Refuse CPUs and GPUs in the same run, before processes with different backends wait for each other.

    With ``accelerator: auto``, a machine whose GPUs are not found falls back to its CPU. It would join by gloo and the
    others by NCCL, and all would wait until the time limit. Lightning starts processes on one machine only, with one
    accelerator: the check is for those that torchrun, SLURM and the like have started.

    Returns:
        The store that the processes have used, to be kept as long as others may read; None if there was no need of one.

    Raises:
        ValueError: If devices differ, or there are not as many processes as devices; on all processes.
    """
    environment = getattr(trainer.strategy, "cluster_environment", None)
    # A process that Lightning has started takes itself for one that was started externally; its launcher does not.
    if environment is None or isinstance(environment, LightningEnvironment):
        return None
    _check_number(trainer, environment)
    if environment.world_size() == 1:
        return None
    from torch.distributed import PrefixStore, rendezvous  # noqa: PLC0415 - not in every torch

    # Lightning sets the same when it makes the process group.
    os.environ.setdefault("MASTER_ADDR", str(environment.main_address))
    os.environ.setdefault("MASTER_PORT", str(environment.main_port))
    rank, world_size = environment.global_rank(), environment.world_size()
    store: Store
    store, _, _ = next(rendezvous("env://", rank=rank, world_size=world_size, timeout=_TIMEOUT))
    talk = PrefixStore("nc_lightning", store)
    devices = _of_all(talk, "device", trainer.strategy.root_device.type, rank, world_size)
    kinds = sorted(set(devices))
    if len(kinds) > 1:
        _leave_together(talk, rank, world_size)
        got = (f"{kind} on rank {', '.join(str(r) for r in range(world_size) if devices[r] == kind)}" for kind in kinds)
        raise ValueError(
            f"--trainer.accelerator: got {' and '.join(got)}, expected the same on all processes; look at nvidia-smi "
            "on each machine, or set --trainer.accelerator"
        )
    return store


def _check_number(trainer: Trainer, environment: ClusterEnvironment) -> None:
    """Refuse fewer or more processes than the run has devices, for which it would wait."""
    started, wanted = environment.world_size(), trainer.num_devices * trainer.num_nodes
    if started != wanted:
        kind = type(environment).__name__.removesuffix("Environment")
        remedy = "; set sbatch's --ntasks-per-node to devices, and --nodes to num_nodes" if kind == "SLURM" else ""
        raise ValueError(
            f"--trainer.devices: got {trainer.num_devices} on {trainer.num_nodes} node(s) in a job of {started} "
            f"process(es) ({kind}), expected one process for each device{remedy}"
        )


def _of_all(store: "Store", key: str, value: str, rank: int, world_size: int) -> list[str]:
    store.set(f"{key}/{rank}", value)
    return [store.get(f"{key}/{other}").decode() for other in range(world_size)]


def _leave_together(store: "Store", rank: int, world_size: int) -> None:
    """Let process 0, whose end is that of the store, be the last to go."""
    store.set(f"end/{rank}", "")
    if rank == 0:
        store.wait([f"end/{other}" for other in range(world_size)], _TIMEOUT)
