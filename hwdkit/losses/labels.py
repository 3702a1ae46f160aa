"""Labels at the size of the maps that losses compare."""

from __future__ import annotations

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
