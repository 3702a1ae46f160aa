"""Cross-entropy of up-sampled logits on a GPU in one Triton kernel, which keeps no up-sampled logit.

The same numbers as `upsampled_ce.py`, which stays the specification. `choice.py` says when this is used. A
program handles the pixels between four neighbouring logits and leaves its part of their gradients apart from
the others'; the four parts of a logit are added afterwards, so that two runs agree to the bit.
"""

from __future__ import annotations

import math

import torch
import triton
import triton.language as tl
from torch import Tensor

from hwdkit.kernels.bilinear import cells, largest_cell

HELD = 2048
"""Scores that a program holds at a time, two classes at the least: of many more ptxas spills registers."""


MOST_PIXELS = 2048
"""Between four logits, for one program; at stride 32 there are 1089."""


def takes(logits: Tensor, label: Tensor, *, align_corners: bool) -> bool:
    """Whether the logits are stretched little enough."""
    sides = zip(logits.shape[2:], label.shape[1:], strict=True)
    cell = math.prod(largest_cell(source, target, align_corners=align_corners) for source, target in sides)
    return cell <= MOST_PIXELS


def value_and_gradient(
    logits: Tensor, label: Tensor, *, align_corners: bool, ignore: int, wanted: bool
) -> tuple[Tensor, Tensor | None]:
    """`upsampled_ce_sum` and its gradient in the logits.

    Args:
        logits: (N, C, h, w) float32 or half precision.
        label: (N, H, W) integers within [0, C) or `ignore`; others make the loss NaN.
        align_corners: how the maps are stretched.
        ignore: the label that does not count.
        wanted: whether the gradient is.

    Returns:
        A float32 scalar, and (N, C, h, w) float32 or None.
    """
    count, classes, height, width = logits.shape
    like = logits.new_empty(0, dtype=torch.float32)
    down = cells(height, label.shape[1], align_corners=align_corners, like=like)
    across = cells(width, label.shape[2], align_corners=align_corners, like=like)
    near = logits.permute(0, 2, 3, 1).contiguous()  # the classes of a position lie together
    grid = (count, height + 1, width + 1)
    loss = like.new_empty(grid)
    parts = like.new_empty((2, 2, *grid, classes) if wanted else 1)
    pixels = max(16, triton.next_power_of_2(down.members.shape[1] * across.members.shape[1]))
    block = max(2, min(32, HELD // pixels))
    _cell[grid](
        near,
        label.contiguous(),
        loss,
        parts,
        down.members[:, 0].contiguous(),
        down.inside,
        down.fraction,
        across.members[:, 0].contiguous(),
        across.inside,
        across.fraction,
        classes,
        height,
        width,
        label.shape[1],
        label.shape[2],
        ignore,
        down.members.shape[1],
        across.members.shape[1],
        wanted=wanted,
        pixels=pixels,
        block=min(block, triton.next_power_of_2(classes)),
        num_warps=4 if pixels <= 512 else 8,
    )
    gradient = _joined(_joined(parts)).permute(0, 3, 1, 2) if wanted else None
    return loss.sum(), gradient


def _joined(parts: Tensor) -> Tensor:
    """Add up, along one axis, what cells hold of the positions between them.

    Args:
        parts: (2, m, n, cells, ...): of each cell its part of the position before it, then of the one
            behind. The outermost cells lie outside of the first and the last position: both are that one.

    Returns:
        (m, n, cells - 1, ...).
    """
    before, behind = parts.unbind(0)
    count = before.shape[2] - 1
    whole = before.narrow(2, 1, count) + behind.narrow(2, 0, count)
    whole.select(2, 0).add_(before.select(2, 0))
    whole.select(2, -1).add_(behind.select(2, -1))
    return whole


@triton.jit
def _cell(
    near,
    label,
    loss,
    parts,
    first_row,
    rows,
    row_fraction,
    first_column,
    columns,
    column_fraction,
    classes,
    height,
    width,
    label_height,
    label_width,
    ignore,
    most_rows,
    most_columns,
    wanted: tl.constexpr,
    pixels: tl.constexpr,
    block: tl.constexpr,
):
    """The pixels of one cell of one image: their loss, and their part of the gradient at its four corners."""
    image = tl.program_id(0).to(tl.int64)
    y, x = tl.program_id(1), tl.program_id(2)
    pixel = tl.arange(0, pixels)
    row, column = pixel // most_columns, pixel % most_columns
    inside = (row < tl.load(rows + y)) & (column < tl.load(columns + x))
    below = tl.load(row_fraction + y * most_rows + row, mask=inside, other=0.0)
    right = tl.load(column_fraction + x * most_columns + column, mask=inside, other=0.0)
    at = (
        (image * label_height + tl.load(first_row + y) + row) * label_width
        + tl.load(first_column + x)
        + column
    )
    own = tl.load(label + at, mask=inside, other=ignore).to(tl.int32)
    counted = inside & (own != ignore)

    top, bottom = tl.maximum(y - 1, 0), tl.minimum(y, height - 1)
    left, end = tl.maximum(x - 1, 0), tl.minimum(x, width - 1)
    of_image = image * height * width
    top_left = near + (of_image + top * width + left) * classes
    top_right = near + (of_image + top * width + end) * classes
    bottom_left = near + (of_image + bottom * width + left) * classes
    bottom_right = near + (of_image + bottom * width + end) * classes
    w_tl, w_tr = (1 - below) * (1 - right), (1 - below) * right
    w_bl, w_br = below * (1 - right), below * right

    lane = tl.arange(0, block)
    peak = tl.full((pixels,), float("-inf"), tl.float32)
    mass = tl.zeros((pixels,), tl.float32)
    for start in range(0, classes, block):
        c = start + lane
        score = _scores(top_left, top_right, bottom_left, bottom_right, w_tl, w_tr, w_bl, w_br, c, classes)
        score = tl.where((c < classes)[None, :], score, float("-inf"))
        new = tl.maximum(peak, tl.max(score, 1))
        mass = mass * tl.exp(peak - new) + tl.sum(tl.exp(score - new[:, None]), 1)
        peak = new
    lse = peak + tl.log(mass)
    known = counted & (own >= 0) & (own < classes)
    nothing = float("nan")  # for a label that is no class, where torch's own operations raise
    chosen = (
        w_tl * tl.load(top_left + own, mask=known, other=nothing).to(tl.float32)
        + w_tr * tl.load(top_right + own, mask=known, other=nothing).to(tl.float32)
        + w_bl * tl.load(bottom_left + own, mask=known, other=nothing).to(tl.float32)
        + w_br * tl.load(bottom_right + own, mask=known, other=nothing).to(tl.float32)
    )
    cell = (image * (height + 1) + y) * (width + 1) + x
    tl.store(loss + cell, tl.sum(tl.where(counted, lse - chosen, 0.0), 0))
    if wanted:
        corner = tl.num_programs(0).to(tl.int64) * (height + 1) * (width + 1) * classes
        mine = parts + cell * classes
        for start in range(0, classes, block):
            c = start + lane
            score = _scores(
                top_left, top_right, bottom_left, bottom_right, w_tl, w_tr, w_bl, w_br, c, classes
            )
            slope = tl.exp(score - lse[:, None]) - (own[:, None] == c[None, :]).to(tl.float32)
            slope = tl.where(counted[:, None], slope, 0.0)
            real = c < classes
            tl.store(mine + c, tl.sum(slope * w_tl[:, None], 0), mask=real)
            tl.store(mine + corner + c, tl.sum(slope * w_tr[:, None], 0), mask=real)
            tl.store(mine + 2 * corner + c, tl.sum(slope * w_bl[:, None], 0), mask=real)
            tl.store(mine + 3 * corner + c, tl.sum(slope * w_br[:, None], 0), mask=real)


@triton.jit
def _scores(top_left, top_right, bottom_left, bottom_right, w_tl, w_tr, w_bl, w_br, c, classes):
    """(pixels, classes) up-sampled logits; 0 for classes that are none."""
    real = c < classes
    a = tl.load(top_left + c, mask=real, other=0.0).to(tl.float32)
    b = tl.load(top_right + c, mask=real, other=0.0).to(tl.float32)
    d = tl.load(bottom_left + c, mask=real, other=0.0).to(tl.float32)
    e = tl.load(bottom_right + c, mask=real, other=0.0).to(tl.float32)
    above = w_tl[:, None] * a[None, :] + w_tr[:, None] * b[None, :]
    return above + w_bl[:, None] * d[None, :] + w_br[:, None] * e[None, :]
