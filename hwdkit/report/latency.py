"""How long a forward pass takes and how much memory it needs, measured on the device the network is on."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from hwdkit.models.segmenter import Segmenter


@dataclass(frozen=True)
class Latency:
    """Wall-clock milliseconds of one forward pass in evaluation mode, measured after warm-up."""

    median_ms: float
    p95_ms: float
    mean_ms: float
    repeats: int


def measure_latency(
    network: Segmenter, size: tuple[int, int], *, batch: int = 1, warmup: int = 10, repeats: int = 50
) -> Latency:
    """Time forward passes of the deployed network, uint8 image to logits, on the device it is on.

    Args:
        network: any Segmenter.
        size: (H, W) of the image, pixels.
        batch: images per forward pass.
        warmup: passes before the clock starts; they select kernels and fill the allocator.
        repeats: timed passes, at least 1. The device is synchronised before and after each.

    To time mixed precision, call this inside `torch.autocast`.
    """
    run, device = _runner(network, size, batch)
    milliseconds = []
    with evaluating(network):
        for _ in range(warmup):
            run()
        for _ in range(repeats):
            _synchronise(device)
            start = time.perf_counter()
            run()
            _synchronise(device)
            milliseconds.append((time.perf_counter() - start) * 1e3)
    return Latency(
        median_ms=statistics.median(milliseconds),
        p95_ms=_percentile(milliseconds, 0.95),
        mean_ms=statistics.fmean(milliseconds),
        repeats=repeats,
    )


def measure_peak_memory(
    network: Segmenter, size: tuple[int, int], *, batch: int = 1
) -> tuple[float | None, str]:
    """Return the most MiB that the network's tensors held at once in a forward pass, or None and why.

    On CUDA this is the rise of the caching allocator's peak, plus the weights; other tensors on the device do
    not count. Elsewhere torch keeps no such counter, and a process's resident size says more about its past.
    """
    device = next(network.parameters()).device
    if device.type != "cuda":
        return None, f"torch counts no peak memory on {device.type}"
    weights = sum(t.numel() * t.element_size() for t in (*network.parameters(), *network.buffers()))
    before = torch.cuda.memory_allocated(device)
    run, device = _runner(network, size, batch)
    with evaluating(network):
        run()
        torch.cuda.synchronize(device)
        torch.cuda.reset_peak_memory_stats(device)
        run()
        torch.cuda.synchronize(device)
    return (torch.cuda.max_memory_allocated(device) - before + weights) / 2**20, ""


@contextmanager
def evaluating(network: nn.Module) -> Iterator[None]:
    """Run without gradients and in evaluation mode, then restore the mode of every single module."""
    modes = {module: module.training for module in network.modules()}
    network.eval()
    try:
        with torch.no_grad():
            yield
    finally:
        for module, training in modes.items():
            module.training = training


def _runner(network: Segmenter, size: tuple[int, int], batch: int) -> tuple[Callable[[], Any], torch.device]:
    device = next(network.parameters()).device
    image = torch.zeros(batch, 3, *size, dtype=torch.uint8, device=device)  # random ones would move the seed
    return lambda: network(image, aux=False), device


def _synchronise(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def _percentile(values: list[float], fraction: float) -> float:
    return float(torch.tensor(values, dtype=torch.float64).quantile(fraction))
