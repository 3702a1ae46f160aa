"""The inputs of every recorded number in golden/: score maps, features and labels, all float64.

Recorded by running the official repositories' code; 255 here where it says -1.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from hwdkit.types import SegOutput

GOLDEN = Path(__file__).parent / "golden"


def arrays(name: str) -> dict[str, Tensor]:
    """The arrays of golden/<name>.npz."""
    with np.load(GOLDEN / f"{name}.npz") as file:
        return {key: torch.from_numpy(file[key]) for key in file.files}


_MAPS = arrays("losses")
_FEATURES = arrays("features")
LABEL = _MAPS["label"].long()
"""(2, 36, 44); class 6 is absent from the second image."""


def student(*, wide: bool = False) -> SegOutput:
    """Logits (2, 7, 9, 11) and an embedding of 6 channels (`wide`: 8); both want gradients."""
    embedding = _FEATURES["student_wide" if wide else "student"].clone().requires_grad_()
    return SegOutput(_MAPS["student"].clone().requires_grad_(), None, {"embedding": embedding})


def teacher() -> SegOutput:
    """Logits (2, 7, 9, 11) and an embedding of 8 channels."""
    return SegOutput(_MAPS["teacher"], None, {"embedding": _FEATURES["teacher"]})


def value_and_gradient(loss: torch.nn.Module, tap: str = "embedding") -> tuple[float, Tensor]:
    """A loss in float64 on the recorded inputs, and its gradient with respect to the student's map."""
    out = student()
    value: Tensor = loss.double()(out, teacher(), LABEL)
    (gradient,) = torch.autograd.grad(value, out.logits if tap == "logits" else out.taps[tap])
    return value.item(), gradient
