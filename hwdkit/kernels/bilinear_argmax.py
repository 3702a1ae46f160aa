"""The class map of bilinearly up-sampled logits, without up-sampling most of them.

Between four neighbouring scores a bilinear surface is a convex combination. Where all four have the same
class on top, that class is on top everywhere between them; only the other cells, along the borders of things,
need their pixels computed.
"""

from __future__ import annotations

import torch
from torch import Tensor

from hwdkit.kernels.bilinear import Cells, cells

CPU_BYTES = 2 * 2**20
"""Up-sampled scores held at a time on a CPU: what stays in a core's own cache."""

GPU_BYTES = 256 * 2**20


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
    down = cells(height, size[0], align_corners=align_corners, like=scores)
    across = cells(width, size[1], align_corners=align_corners, like=scores)
    best = scores.max(0).indices.to(torch.uint8 if classes <= 256 else torch.int32)
    corners = [best[y][:, x] for y in (down.low, down.high) for x in (across.low, across.high)]
    unanimous = (corners[0] == corners[1]) & (corners[0] == corners[2]) & (corners[0] == corners[3])
    result = corners[0][down.of][:, across.of]
    mixed = ~unanimous & (down.inside > 0)[:, None] & (across.inside > 0)
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
