"""What benchmarks need of a device: its precisions, its own timer, its waits, its memory and its limits."""

import argparse
import statistics
import time
import warnings
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from benchmarks.work import Roofline

DTYPES = {"float32": torch.float32, "tf32": torch.float32, "bf16": torch.bfloat16, "float64": torch.float64}


def add_arguments(parser: argparse.ArgumentParser, precision: bool = True) -> None:
    """Let a command be given a device, and a precision of features and of matrix products."""
    parser.add_argument("--device", type=torch.device, default=torch.device("cpu"), help="cpu, cuda, cuda:1, mps, ...")
    if precision:
        parser.add_argument("--precision", choices=list(DTYPES), default="float32")


def dtype_of(precision: str) -> torch.dtype:
    """Return the dtype of features, and let matrix products of float32 be as precise as said."""
    torch.set_float32_matmul_precision("high" if precision == "tf32" else "highest")
    return DTYPES[precision]


def name_of(device: torch.device) -> str:
    """Return what to call the device in a table."""
    if device.type == "cpu":
        return f"{torch.get_num_threads()} CPU threads"
    return str(getattr(torch.get_device_module(device), "get_device_name", lambda _: device)(device))


def synchronize(device: torch.device) -> None:
    """Wait for all work of the device."""
    if device.type == "mps":
        torch.mps.synchronize()
    elif device.type != "cpu":
        torch.get_device_module(device).synchronize(device)


def seconds(call: Callable[[], object], device: torch.device, at_least: float = 0.05) -> float:
    """Median seconds of a call by the device's own timer, repeated for at least as long as said."""
    times = [_elapsed(call, device)]
    while sum(times) < at_least:
        times.append(_elapsed(call, device))
    return statistics.median(times)


def _elapsed(call: Callable[[], object], device: torch.device) -> float:
    if device.type == "cpu":
        start = time.perf_counter()
        call()
        return time.perf_counter() - start
    event: Any = torch.get_device_module(device).Event
    before, after = event(enable_timing=True), event(enable_timing=True)
    before.record()
    call()
    after.record()
    after.synchronize()
    return float(before.elapsed_time(after)) / 1e3


def waits(call: Callable[[], object], device: torch.device) -> int | None:
    """Number of times that a call waits for the device; None where torch cannot tell, which is all but CUDA."""
    if device.type != "cuda":
        return None
    mode = torch.cuda.get_sync_debug_mode()
    torch.cuda.set_sync_debug_mode("warn")
    try:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            call()
    finally:
        torch.cuda.set_sync_debug_mode(mode)
    return sum("synchronizing" in str(warning.message) for warning in caught)


def extra_memory(call: Callable[[], object], device: torch.device) -> int | None:
    """Bytes that a call takes at its peak beyond what is there before; None where the device does not count them."""
    module: Any = torch.get_device_module(device)
    if not hasattr(module, "reset_peak_memory_stats"):
        return None
    synchronize(device)
    module.reset_peak_memory_stats(device)
    before = int(module.memory_allocated(device))
    call()
    synchronize(device)
    return int(module.max_memory_allocated(device)) - before


def roofline(device: torch.device, dtype: torch.dtype) -> Roofline:
    """Measure the limits of a device by a copy and by a matrix product, as large as they have to be."""
    on_cpu = device.type == "cpu"
    size, side = (2**26, 1024) if on_cpu else (2**28, 8192)
    source = torch.zeros(size, dtype=torch.uint8, device=device)
    target, square = torch.empty_like(source), torch.ones(side, side, dtype=dtype, device=device)
    calls: tuple[Callable[[], Tensor], ...] = (lambda: target.copy_(source), lambda: square @ square)
    for call in calls:
        call()
    copy, product = calls
    return Roofline(2 * size / seconds(copy, device), 2 * side**3 / seconds(product, device))
