"""Labels at the size of the maps that losses compare."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def small_label(label: Tensor, size: tuple[int, int]) -> Tensor:
    """Down-sample a label map by nearest, as the authors' code of every method here does.

    Args:
        label: (N, H, W) int64, 255 = ignore.
        size: (h, w) of the maps.

    Returns:
        (N, h, w) int64.
    """
    # Interpolation is for floats; class indices are exact in float32.
    return F.interpolate(label[:, None].float(), size, mode="nearest").long()[:, 0]


def class_ids(label: Tensor, classes: int) -> Tensor:
    """The class of every position, C for those that do not count.

    Args:
        label: (N, h, w) int64; values outside [0, classes) do not count.
        classes: C.

    Returns:
        (N, M) int64 within [0, C], M = h*w.
    """
    return torch.where((label >= 0) & (label < classes), label, classes).flatten(1)


def members(ids: Tensor, classes: int) -> Tensor:
    """Which positions belong to which class: (N, M) from `class_ids` -> (N, C, M) bool."""
    return ids[:, None] == torch.arange(classes, device=ids.device)[:, None]
