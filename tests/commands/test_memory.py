"""Running out of memory is told as such, whichever allocator it was."""

from __future__ import annotations

import pytest
import torch

from hwdkit.errors import OutOfMemory
from hwdkit.terminal.memory import WHILE_EVALUATING, explained_memory


@pytest.mark.parametrize("error", [torch.OutOfMemoryError("CUDA out of memory.\nmore"), MemoryError()])
def test_a_failed_allocation_exits_8_with_what_to_try(error: Exception) -> None:
    with pytest.raises(OutOfMemory, match="out of memory") as caught, explained_memory(WHILE_EVALUATING):
        raise error
    assert caught.value.exit_code == 8
    assert caught.value.hint == WHILE_EVALUATING
    assert "more" not in caught.value.message


def test_an_allocation_that_torch_refuses_on_the_cpu_exits_8() -> None:
    with pytest.raises(OutOfMemory, match="can't allocate memory"), explained_memory():
        torch.empty(2**60, dtype=torch.uint8)


def test_any_other_failure_stays_what_it_is() -> None:
    with pytest.raises(RuntimeError, match="something else"), explained_memory():
        raise RuntimeError("something else")
