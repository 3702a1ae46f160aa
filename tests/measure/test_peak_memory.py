"""Peak memory: what was live at the worst moment, no matter what came before."""

from __future__ import annotations

import pytest
import torch

from hwdkit.measure.memory import MIB, bytes_of, peak_bytes

CPU = torch.device("cpu")


def test_peak_is_of_the_worst_moment_not_of_the_sum() -> None:
    def work() -> None:
        small = torch.empty(MIB, dtype=torch.uint8)
        del small
        large = torch.empty(3 * MIB, dtype=torch.uint8)
        beside = torch.empty(MIB, dtype=torch.uint8)
        del large, beside
        torch.empty(2 * MIB, dtype=torch.uint8)

    assert peak_bytes(work, CPU) == 4 * MIB


def test_what_was_there_before_does_not_count() -> None:
    before = torch.empty(5 * MIB, dtype=torch.uint8)

    def work() -> None:
        nonlocal before
        before = torch.empty(MIB, dtype=torch.uint8)

    assert peak_bytes(work, CPU) == MIB
    assert before.numel() == MIB


def test_a_device_that_cannot_be_asked_is_refused_before_the_work() -> None:
    with pytest.raises(ValueError, match="meta"):
        peak_bytes(lambda: pytest.fail("it ran"), torch.device("meta"))


def test_shared_storage_is_counted_once() -> None:
    whole = torch.empty(1000, dtype=torch.float32)
    assert bytes_of([whole, whole[:10], torch.empty(3, dtype=torch.float64)]) == 4024
