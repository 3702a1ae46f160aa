"""Whether losses on a GPU run as Triton kernels or as torch's operations: a recipe's `train.kernels`.

The Triton twins are tested in Triton's interpreter and compile for GPUs; no GPU has timed them yet, and what
has not been seen to be faster is not the default.
"""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import Literal

import torch
from torch import Tensor

Kernels = Literal["torch", "triton"]

DEVICES = ("cuda",)
"""Where Triton's kernels run. Its interpreter runs them on a CPU, for tests."""


class _Chosen:
    kernels: Kernels = "torch"


def choose(kernels: Kernels) -> None:
    """Say for the whole process which kernels losses use where Triton's can be used."""
    _Chosen.kernels = kernels


def current_device(maps: Tensor) -> AbstractContextManager[None]:
    """Make the maps' GPU the current one, on which Triton launches; on a CPU nothing happens."""
    if maps.device.type == "cpu":
        return nullcontext()
    current: AbstractContextManager[None] = torch.cuda.device_of(maps)  # type: ignore[no-untyped-call]
    return current


def triton_takes(maps: Tensor) -> bool:
    """Whether these maps go through Triton: chosen, on a GPU, not empty, float32 at most."""
    return (
        _Chosen.kernels == "triton"
        and maps.device.type in DEVICES
        and maps.dtype in (torch.float32, torch.bfloat16, torch.float16)
        and maps.numel() > 0
    )
