"""Bilinear interpolation along one axis as what it is: a matrix with two entries a row."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor


class Taps(NamedTuple):
    """Where each target position reads: weight 1 - fraction at `low`, fraction at `high`; all (target,)."""

    low: Tensor
    high: Tensor
    fraction: Tensor


def places(source: int, target: int, *, align_corners: bool, device: torch.device) -> Tensor:
    """(target,) float64: where every target position lies between the source positions 0 ... source - 1.

    Without align_corners the first lie before 0, where `F.interpolate` repeats the first source position.
    """
    place = torch.arange(target, device=device, dtype=torch.float64)
    if align_corners:
        return place * ((source - 1) / (target - 1) if target > 1 else 0.0)
    return (place + 0.5) * (source / target) - 0.5


def taps(source: int, target: int, *, align_corners: bool, like: Tensor) -> Taps:
    """The two source positions of every target position, as `F.interpolate` chooses them.

    Args:
        source: length of the axis that is read.
        target: length of the axis that is made.
        align_corners: whether first and last positions coincide, or the outer edges of the pixels do.
        like: gives the device and the dtype of the fraction; positions are computed in float64.
    """
    place = places(source, target, align_corners=align_corners, device=like.device).clamp(min=0)
    low = place.floor().clamp(max=source - 1)
    high = (low + 1).clamp(max=source - 1)
    return Taps(low.long(), high.long(), (place - low).to(like.dtype))


class Cells(NamedTuple):
    """One axis cut at the source positions; cells 0 and last lie outside of the first and the last position.

    Attributes:
        of: (target,) the cell of every target position.
        low, high: (cells,) the source positions on both sides; the same one at the rim.
        members: (cells, n) the target positions inside; the last one repeated where there are fewer than n.
        fraction: (cells, n) how far from `low` to `high` they lie.
        inside: (cells,) how many there are.
    """

    of: Tensor
    low: Tensor
    high: Tensor
    members: Tensor
    fraction: Tensor
    inside: Tensor


def cells(source: int, target: int, *, align_corners: bool, like: Tensor) -> Cells:
    """Cut an axis at its source positions; lengths and `like` as for `taps`."""
    place = places(source, target, align_corners=align_corners, device=like.device)
    place = torch.where((place - place.round()).abs() < 1e-9, place.round(), place)  # 2.9999999999999996 is 3
    of = place.floor().long().clamp(-1, source - 1) + 1
    cell = torch.arange(source + 1, device=like.device)
    low, high = (cell - 1).clamp(min=0), cell.clamp(max=source - 1)
    start = torch.searchsorted(of, cell)
    count = torch.searchsorted(of, cell, right=True) - start
    last = (start + count - 1).clamp(min=0)
    most = largest_cell(source, target, align_corners=align_corners)
    members = torch.minimum(start[:, None] + torch.arange(most, device=like.device), last[:, None])
    fraction = (place[members] - (cell - 1)[:, None]).to(like.dtype)
    return Cells(of, low, high, members, fraction, count)


def largest_cell(source: int, target: int, *, align_corners: bool) -> int:
    """How many target positions may lie between two neighbours of the source, or outside of them all."""
    pace = (source - 1) / max(1, target - 1) if align_corners else source / target
    return max(1, math.ceil(1 / pace - 1e-6)) if pace else target


def matrix(source: int, target: int, *, align_corners: bool, like: Tensor) -> Tensor:
    """(target, source): `maps @ matrix.T` resizes the last axis, `maps @ matrix` is the adjoint."""
    low, high, fraction = taps(source, target, align_corners=align_corners, like=like)
    weights = fraction.new_zeros(target, source)
    weights.scatter_(1, low[:, None], 1 - fraction[:, None])
    return weights.scatter_add_(1, high[:, None], fraction[:, None])


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
