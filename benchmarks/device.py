"""Device utilities of the benchmarks: precision, timer, host waits, memory and limits."""

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
    """Add command-line options for the device and for the precision of features and matrix products."""
    parser.add_argument("--device", type=torch.device, default=torch.device("cpu"), help="cpu, cuda, cuda:1, mps, ...")
    if precision:
        parser.add_argument("--precision", choices=list(DTYPES), default="float32")


def dtype_of(precision: str) -> torch.dtype:
    """Return the dtype of the features, and set the precision of float32 matrix products."""
    torch.set_float32_matmul_precision("high" if precision == "tf32" else "highest")
    return DTYPES[precision]


def name_of(device: torch.device) -> str:
    """Return the name of the device for a table."""
    if device.type == "cpu":
        return f"{torch.get_num_threads()} CPU threads"
    return str(getattr(torch.get_device_module(device), "get_device_name", lambda _: device)(device))


def synchronize(device: torch.device) -> None:
    """Wait until the device has finished all work."""
    if device.type == "mps":
        torch.mps.synchronize()
    elif device.type != "cpu":
        torch.get_device_module(device).synchronize(device)


def seconds(call: Callable[[], object], device: torch.device, at_least: float = 0.05) -> float:
    """Return the median seconds of a call, by the timer of the device, repeated for at least ``at_least``."""
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
    """Return how often a call waits for the device; None except on CUDA, where torch reports it."""
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
    """Return the peak of the additional bytes of a call; None if the device does not count them."""
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
    """Measure the limits of a device with a copy and a matrix product that are large enough."""
    on_cpu = device.type == "cpu"
    size, side = (2**26, 1024) if on_cpu else (2**28, 8192)
    source = torch.zeros(size, dtype=torch.uint8, device=device)
    target, square = torch.empty_like(source), torch.ones(side, side, dtype=dtype, device=device)
    calls: tuple[Callable[[], Tensor], ...] = (lambda: target.copy_(source), lambda: square @ square)
    for call in calls:
        call()
    copy, product = calls
    return Roofline(2 * size / seconds(copy, device), 2 * side**3 / seconds(product, device))
