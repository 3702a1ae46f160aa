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

from hwdkit.measure.memory import MIB, bytes_of, peak_bytes
from hwdkit.models.segmenter import Segmenter


@dataclass(frozen=True)
class Latency:
    """Wall-clock milliseconds of one forward pass in evaluation mode, measured after warm-up.

    Attributes:
        median_ms, p95_ms, mean_ms: of a pass over the whole batch.
        images_per_s: images of a batch over the median.
        repeats: how many passes were timed.
    """

    median_ms: float
    p95_ms: float
    mean_ms: float
    images_per_s: float
    repeats: int


def measure_latency(
    network: Segmenter,
    size: tuple[int, int],
    *,
    batch: int = 1,
    warmup: int = 10,
    repeats: int = 50,
    dtype: torch.dtype | None = None,
) -> Latency:
    """Time forward passes of the deployed network, uint8 image to logits, on the device it is on.

    Args:
        size: (H, W) of the image, pixels.
        batch: images of a pass.
        warmup: passes before the clock starts; they select kernels and fill the allocator.
        repeats: timed passes, at least 1. The device is synchronised before and after each.
        dtype: autocast type, None for float32.
    """
    run, device = _runner(network, size, batch, dtype)
    with evaluating(network):
        for _ in range(warmup):
            run()
        milliseconds = [timed(run, device) for _ in range(repeats)]
    median = statistics.median(milliseconds)
    return Latency(
        median_ms=median,
        p95_ms=percentile(milliseconds, 0.95),
        mean_ms=statistics.fmean(milliseconds),
        images_per_s=1e3 * batch / median,
        repeats=repeats,
    )


def measure_peak_memory(
    network: Segmenter, size: tuple[int, int], *, batch: int = 1, dtype: torch.dtype | None = None
) -> tuple[float | None, str]:
    """Return the most MiB that the network's tensors held at once in a forward pass, or None and why.

    It is the weights plus the rise of the allocator's live bytes (`peak_bytes`); other tensors on the device
    do not count, nor does a process's resident size, which says more about its past.
    """
    run, device = _runner(network, size, batch, dtype)
    if device.type not in ("cuda", "cpu"):
        return None, f"torch counts no peak memory on {device.type}"
    with evaluating(network):
        run()
        peak = peak_bytes(run, device)
    return (peak + bytes_of([*network.parameters(), *network.buffers()])) / MIB, ""


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


def timed(work: Callable[[], Any], device: torch.device) -> float:
    """Run once between two synchronisations of the device; return milliseconds."""
    synchronise(device)
    start = time.perf_counter()
    work()
    synchronise(device)
    return (time.perf_counter() - start) * 1e3


def synchronise(device: torch.device) -> None:
    """Wait until a GPU has finished its work."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def percentile(values: list[float], fraction: float) -> float:
    """Return the value that this share of them does not exceed, interpolated."""
    return float(torch.tensor(values, dtype=torch.float64).quantile(fraction))


def _runner(
    network: Segmenter, size: tuple[int, int], batch: int, dtype: torch.dtype | None
) -> tuple[Callable[[], None], torch.device]:
    device = next(network.parameters()).device
    image = torch.zeros(batch, 3, *size, dtype=torch.uint8, device=device)  # random ones would move the seed

    def run() -> None:
        # Entered for every pass: autocast keeps the cast weights until it is left, which no deployment does.
        with torch.autocast(device.type, dtype=dtype, enabled=dtype is not None):
            network(image, aux=False)

    return run, device
