"""Cosines between the positions of a map, which PA, IFV and CIRKD share. What they compare is their own."""

from __future__ import annotations

import math

import torch
from torch import Tensor


def unit_channels(maps: Tensor, *, eps: float = 1e-12) -> Tensor:
    """Scale the channel vector of every position to length 1; a zero vector stays zero.

    Args:
        maps: (N, D, ...) features; the channels are axis 1.
        eps: smaller norms divide by it; 1e-12 is that of `F.normalize`.

    Returns:
        (N, D, ...), of length 1 over axis 1.
    """
    norm = torch.linalg.vector_norm(maps, dim=1, keepdim=True)
    # An exact zero (ReLU, dropout) has no direction, hence no gradient here. F.normalize has 1/eps there,
    # which overflows float16; next to zero both are as steep as that.
    unit: Tensor = maps / norm.clamp(min=eps).masked_fill(norm == 0, math.inf)
    return unit


def cosine_gram(unit: Tensor) -> Tensor:
    """Cosine of every position with every other position of its image.

    Args:
        unit: (N, D, h, w) from `unit_channels`, or (N, D, M).

    Returns:
        (N, M, M) with M = h*w: memory grows with M squared.
    """
    flat = unit.flatten(2)
    return torch.bmm(flat.transpose(1, 2), flat)
