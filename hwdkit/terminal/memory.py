"""Out of memory, on the device or on the host, as an error that says what to lower."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from hwdkit.errors import OutOfMemory

WHILE_TRAINING = "lower train.batch_size or data.crop, raise train.accumulate, or set train.amp: bf16"
WHILE_EVALUATING = "evaluate windows (--mode slide), fewer --scales, or on the CPU (--gpus 0)"


@contextmanager
def explained_memory(hint: str = WHILE_TRAINING) -> Iterator[None]:
    """Turn an allocation that failed into OutOfMemory (exit 8) with the settings to try."""
    try:
        yield
    except (torch.OutOfMemoryError, MemoryError) as error:
        raise OutOfMemory((str(error) or "out of memory").splitlines()[0], hint=hint) from error
    except RuntimeError as error:
        if "can't allocate memory" not in str(error):  # the CPU allocator has no type of its own for it
            raise
        raise OutOfMemory(str(error).splitlines()[0], hint=hint) from error
