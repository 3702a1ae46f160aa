"""The class map of bilinearly up-sampled logits, without up-sampling most of them.

Between four neighbouring scores a bilinear surface is a convex combination. Where all four have the same
class on top, that class is on top everywhere between them; only the other cells, along the borders of things,
need their pixels computed.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from hwdkit.kernels.bilinear import largest_cell, places

CPU_BYTES = 2 * 2**20
"""Up-sampled scores held at a time on a CPU: what stays in a core's own cache."""

GPU_BYTES = 256 * 2**20


class Cells(NamedTuple):
    """One axis cut at the source positions; cells 0 and last lie outside of the first and the last position.

    Attributes:
        of: (target,) the cell of every target position.
        low, high: (cells,) the source positions on both sides; the same one at the rim.
        members: (cells, n) the target positions inside; the last one repeated where there are fewer than n.
        fraction: (cells, n) how far from `low` to `high` they lie.
        empty: (cells,) whether no target position is inside.
    """

    of: Tensor
    low: Tensor
    high: Tensor
    members: Tensor
    fraction: Tensor
    empty: Tensor


def upsampled_argmax(
    logits: Tensor, size: tuple[int, int], *, align_corners: bool, budget: int | None = None
) -> Tensor:
    """The class of every pixel: `F.interpolate(logits, size, mode="bilinear").argmax(0)`.

    Pixels whose two best classes are equal up to rounding may take either.

    Args:
        logits: (C, h, w), floating point; half precision is compared in float32.
        size: (H, W) of the result.
        align_corners: how the maps are stretched.
        budget: bytes of up-sampled scores held at a time; None = what suits the device.

    Returns:
        (H, W) uint8, or int32 for more than 256 classes.
    """
    classes, height, width = logits.shape
    scores = logits.to(torch.promote_types(logits.dtype, torch.float32))
    if budget is None:
        budget = CPU_BYTES if scores.device.type == "cpu" else GPU_BYTES
    down = _cells(height, size[0], align_corners=align_corners, like=scores)
    across = _cells(width, size[1], align_corners=align_corners, like=scores)
    best = scores.max(0).indices.to(torch.uint8 if classes <= 256 else torch.int32)
    corners = [best[y][:, x] for y in (down.low, down.high) for x in (across.low, across.high)]
    unanimous = (corners[0] == corners[1]) & (corners[0] == corners[2]) & (corners[0] == corners[3])
    result = corners[0][down.of][:, across.of]
    mixed = ~(unanimous | down.empty[:, None] | across.empty)
    rows, columns = mixed.nonzero(as_tuple=True)
    positions = scores.flatten(1).T.contiguous()  # (h*w, C): the scores of one position lie together
    each = classes * down.members.shape[1] * across.members.shape[1] * scores.element_size()
    step = max(1, budget // each)
    for first in range(0, len(rows), step):
        y, x = rows[first : first + step], columns[first : first + step]
        upper, lower = (
            _between(positions, edge[y] * width, across, x) for edge in (down.low, down.high)
        )  # (k, n_x, C)
        fraction = down.fraction[y][:, :, None, None]
        inside = torch.lerp(upper[:, None], lower[:, None], fraction).max(-1).indices  # (k, n_y, n_x)
        result[down.members[y][:, :, None], across.members[x][:, None, :]] = inside.to(result.dtype)
    return result


def _between(positions: Tensor, row: Tensor, across: Cells, x: Tensor) -> Tensor:
    left, right = positions[row + across.low[x]], positions[row + across.high[x]]
    return torch.lerp(left[:, None], right[:, None], across.fraction[x][:, :, None])


def _cells(source: int, target: int, *, align_corners: bool, like: Tensor) -> Cells:
    """Cut an axis at its source positions; computed on the CPU, on the device of `like` in the end."""
    place = places(source, target, align_corners=align_corners)
    place = torch.where((place - place.round()).abs() < 1e-9, place.round(), place)  # 2.9999999999999996 is 3
    of = place.floor().long().clamp(-1, source - 1) + 1
    cell = torch.arange(source + 1, device="cpu")
    low, high = (cell - 1).clamp(min=0), cell.clamp(max=source - 1)
    start = torch.searchsorted(of, cell)
    count = torch.searchsorted(of, cell, right=True) - start
    last = (start + count - 1).clamp(min=0)
    most = largest_cell(source, target, align_corners=align_corners)
    members = torch.minimum(start[:, None] + torch.arange(most, device="cpu"), last[:, None])
    fraction = (place[members] - (cell - 1)[:, None]).to(like.dtype)
    made = (of, low, high, members, fraction, count == 0)
    return Cells(*(tensor.to(like.device, non_blocking=True) for tensor in made))
