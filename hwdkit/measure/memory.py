"""The most memory that tensors take at once while something runs, on CUDA and on the CPU alike."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor
from torch.profiler import ProfilerActivity, profile

MIB = 2**20


def peak_bytes(work: Callable[[], Any], device: torch.device) -> int:
    """Run `work` once and return how many bytes more than before were allocated at the worst moment.

    On CUDA it is the caching allocator's own peak. On the CPU it is the running sum of the allocator's
    events, which torch's profiler records: scratch memory of oneDNN and BLAS does not go through it. Results
    that `work` keeps count as live to its end.

    Raises:
        ValueError: a device other than cuda and cpu.
    """
    if device.type == "cuda":
        torch.cuda.synchronize(device)
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device)
        work()
        torch.cuda.synchronize(device)
        return torch.cuda.max_memory_allocated(device) - before
    if device.type != "cpu":
        raise ValueError(f"torch counts no peak memory on {device.type}")
    os.environ.setdefault("KINETO_LOG_LEVEL", "99")  # read once: it writes of absent GPUs to stderr
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True, acc_events=True) as recorded:
        work()
    assert recorded.profiler is not None
    assert recorded.profiler.kineto_results is not None
    events = [event for event in recorded.profiler.kineto_results.events() if event.name() == "[memory]"]
    allocated = peak = 0
    for event in sorted(events, key=lambda event: event.start_ns()):
        allocated += event.nbytes()  # negative where memory is given back
        peak = max(peak, allocated)
    return peak


def bytes_of(tensors: Iterable[Tensor]) -> int:
    """Return how many bytes tensors hold, shared storage counted once."""
    storages = {tensor.untyped_storage().data_ptr(): tensor.untyped_storage().nbytes() for tensor in tensors}
    return sum(storages.values())
