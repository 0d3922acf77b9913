"""Checks of devices: they must be available, and of the same kind on all processes."""

import os
from datetime import timedelta
from typing import TYPE_CHECKING

import torch
from lightning.pytorch import Trainer
from lightning.pytorch.accelerators import AcceleratorRegistry
from lightning.pytorch.plugins.environments import ClusterEnvironment, LightningEnvironment

if TYPE_CHECKING:
    from torch.distributed import Store

_TIMEOUT = timedelta(minutes=30)
"""Time limit for processes to wait for each other, as in Lightning and torch."""


def check_accelerator(accelerator: str, argument: str = "accelerator") -> None:
    """Refuse an accelerator that is not available on this machine.

    Raises:
        ValueError: If the accelerator is unknown or not available.

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


def search_no_gpu_again() -> None:
    """Let torch remember that this machine has no GPU.

    Adam asks torch in every step whether there is one. Since Lightning sets this variable to 1, a torch built for CUDA
    then searches the disk for the library of the driver, which takes longer than the rest of a small Adam step. Any
    other value lets torch ask the CUDA runtime, which remembers the answer.

    Example:
        >>> search_no_gpu_again()
    """
    if torch.backends.cuda.is_built() and not torch.cuda.is_available():
        os.environ["PYTORCH_NVML_BASED_CUDA_CHECK"] = "0"


def check_same_device(trainer: Trainer) -> "Store | None":
    """Refuse CPUs and GPUs in the same run, which would deadlock processes with different backends.

    With ``accelerator: auto``, a machine whose GPUs are not found falls back to its CPU. It would use gloo and the
    others NCCL, and all would wait until the time limit. Processes started by Lightning share one machine and one
    accelerator, so only those started by torchrun, SLURM and the like are checked.

    Returns:
        The store that the processes used, to be kept alive while others may read from it; None if it was not needed.

    Raises:
        ValueError: If devices differ, or the number of processes is not that of devices; on all processes.
    """
    environment = getattr(trainer.strategy, "cluster_environment", None)
    # In a process started by Lightning, `creates_processes_externally` is True, so the class is checked instead.
    if environment is None or isinstance(environment, LightningEnvironment):
        return None
    _check_number(trainer, environment)
    if environment.world_size() == 1:
        return None
    from torch.distributed import PrefixStore, rendezvous  # noqa: PLC0415 - not in every torch

    # Lightning sets the same values when it creates the process group.
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
    """Refuse a number of processes that differs from the number of devices, as the run would wait for the rest."""
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
    """Wait on rank 0, which hosts the store, until all other processes have arrived."""
    store.set(f"end/{rank}", "")
    if rank == 0:
        store.wait([f"end/{other}" for other in range(world_size)], _TIMEOUT)
