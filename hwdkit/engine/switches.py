"""torch's global switches: set while a network is trained or validated, then as they were."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext

import torch


@contextmanager
def for_training(deterministic: str) -> Iterator[None]:
    """Deterministic algorithms as a recipe's `train.deterministic` says; if off, the fastest kernels."""
    enabled = torch.are_deterministic_algorithms_enabled()
    warns = torch.is_deterministic_algorithms_warn_only_enabled()
    searches = torch.backends.cudnn.benchmark
    torch.use_deterministic_algorithms(deterministic != "off", warn_only=deterministic == "warn")
    torch.backends.cudnn.benchmark = deterministic == "off"
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(enabled, warn_only=warns)
        torch.backends.cudnn.benchmark = searches


@contextmanager
def for_validation(*, compiled: bool) -> Iterator[None]:
    """No search for kernels, and nothing compiled: for images of many sizes both cost more than they gain.

    The scores are those of `hwdkit evaluate`, which does neither.
    """
    stance = torch.compiler.set_stance("force_eager") if compiled else nullcontext()
    searches, torch.backends.cudnn.benchmark = torch.backends.cudnn.benchmark, False
    try:
        with stance:
            yield
    finally:
        torch.backends.cudnn.benchmark = searches
