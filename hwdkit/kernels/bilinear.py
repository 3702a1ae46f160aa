"""Bilinear interpolation along one axis as what it is: a matrix with two entries a row."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor


class Neighbours(NamedTuple):
    """Where each target position reads: weight 1 - fraction at `low`, fraction at `high`; all (target,)."""

    low: Tensor
    high: Tensor
    fraction: Tensor


def places(source: int, target: int, *, align_corners: bool) -> Tensor:
    """(target,) float64: where every target position lies between the source positions 0 ... source - 1.

    Without align_corners the first lie before 0, where `F.interpolate` repeats the first source position. On
    the CPU, where a few numbers cost less than the launches that a GPU would need for them.
    """
    place = torch.arange(target, device="cpu", dtype=torch.float64)
    if align_corners:
        return place * ((source - 1) / (target - 1) if target > 1 else 0.0)
    return (place + 0.5) * (source / target) - 0.5


def neighbours(source: int, target: int, *, align_corners: bool) -> Neighbours:
    """The two source positions of every target position, as `F.interpolate` chooses them, on the CPU.

    Args:
        source: length of the axis that is read.
        target: length of the axis that is made.
        align_corners: whether first and last positions coincide, or the outer edges of the pixels do.
    """
    place = places(source, target, align_corners=align_corners).clamp(min=0)
    low = place.floor().clamp(max=source - 1)
    high = (low + 1).clamp(max=source - 1)
    return Neighbours(low.long(), high.long(), place - low)


def largest_cell(source: int, target: int, *, align_corners: bool) -> int:
    """How many target positions may lie between two neighbours of the source, or outside of them all."""
    step = (source - 1) / max(1, target - 1) if align_corners else source / target
    return max(1, math.ceil(1 / step - 1e-6)) if step else target


def matrix(source: int, target: int, *, align_corners: bool, like: Tensor) -> Tensor:
    """(target, source): `maps @ matrix.T` resizes the last axis, `maps @ matrix` is the adjoint.

    Args:
        source, target, align_corners: see `neighbours`.
        like: gives the matrix's device and dtype; it is computed in float64.
    """
    low, high, fraction = neighbours(source, target, align_corners=align_corners)
    weights = fraction.new_zeros(target, source)
    weights.scatter_(1, low[:, None], 1 - fraction[:, None])
    weights.scatter_add_(1, high[:, None], fraction[:, None])
    return weights.to(like.device, like.dtype, non_blocking=True)


def span(start: int, stop: int, source: int, target: int, *, align_corners: bool) -> tuple[int, int]:
    """The source positions [first, last) that the target positions [start, stop) read; no tensor is touched.

    It may hold one position more than needed at either end: rounding must not cut off one that is read.
    """
    if align_corners:
        step = (source - 1) / (target - 1) if target > 1 else 0.0
        first, last = start * step, (stop - 1) * step
    else:
        step = source / target
        first, last = (start + 0.5) * step - 0.5, (stop - 0.5) * step - 0.5
    return max(0, math.floor(first - 1e-6)), min(source, math.floor(last + 1e-6) + 2)
