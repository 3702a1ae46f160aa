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

from hwdkit.kernels.bilinear import largest_cell

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
    logits: Tensor, label: Tensor, *, align_corners: bool, ignore: int, needs_gradient: bool
) -> tuple[Tensor, Tensor | None]:
    """`upsampled_ce_sum` and its gradient or None, both float32; a label that is no class makes them NaN."""
    (count, classes, height, width), (_, rows, columns) = logits.shape, label.shape
    most_rows = largest_cell(height, rows, align_corners=align_corners)
    most_columns = largest_cell(width, columns, align_corners=align_corners)
    pixels = max(16, triton.next_power_of_2(most_rows * most_columns))
    grid = (count, height + 1, width + 1)
    near = logits.permute(0, 2, 3, 1).contiguous()  # the classes of a position lie together
    loss = logits.new_empty(grid, dtype=torch.float32)
    parts = logits.new_empty((2, 2, *grid, classes) if needs_gradient else 1, dtype=torch.float32)
    _cell[grid](
        near, label.contiguous(), loss, parts, classes, height, width, rows, columns, most_columns, ignore,
        align_corners=align_corners, needs_gradient=needs_gradient, pixels=pixels,
        block=min(max(2, min(32, HELD // pixels)), triton.next_power_of_2(classes)),
        num_warps=4 if pixels <= 512 else 8,
    )  # fmt: skip
    gradient = _joined(_joined(parts)).permute(0, 3, 1, 2) if needs_gradient else None
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
def _first(cell, source, target, align_corners: tl.constexpr):
    """The first target position of a cell along an axis, exactly: all numbers are whole.

    Position i lies at i (source - 1) / (target - 1), or at ((2 i + 1) source / target - 1) / 2; cell k begins
    at source position k - 1.
    """
    if align_corners:
        over, under = (cell - 1) * tl.maximum(target - 1, 1), tl.maximum(source - 1, 1)
    else:
        over, under = (2 * cell - 1) * target - source, 2 * source
    first = tl.minimum((tl.maximum(over, 0) + under - 1) // under, target)
    return tl.where(cell == 0, 0, tl.where(cell > source, target, first))


@triton.jit
def _fraction(position, cell, source, target, align_corners: tl.constexpr):
    """How far behind the beginning of its cell a target position lies, 0 to 1."""
    if align_corners:
        under = tl.maximum(target - 1, 1)
        over = position * (source - 1) - (cell - 1) * under
    else:
        under = 2 * target
        over = (2 * position + 1) * source - (2 * cell - 1) * target
    # Outside of the first and the last source position both corners are the same.
    return tl.minimum(tl.maximum(over.to(tl.float32) / under, 0.0), 1.0)


@triton.jit
def _cell(
    near,
    label,
    loss,
    parts,
    classes,
    height,
    width,
    rows,
    columns,
    most_columns,
    ignore,
    align_corners: tl.constexpr,
    needs_gradient: tl.constexpr,
    pixels: tl.constexpr,
    block: tl.constexpr,
):
    """The pixels of one cell of one image: their loss, and their part of the gradient at its four corners."""
    image = tl.program_id(0).to(tl.int64)
    y, x = tl.program_id(1), tl.program_id(2)
    pixel = tl.arange(0, pixels)
    row = _first(y, height, rows, align_corners) + pixel // most_columns
    column = _first(x, width, columns, align_corners) + pixel % most_columns
    inside = row < _first(y + 1, height, rows, align_corners)
    inside = inside & (column < _first(x + 1, width, columns, align_corners))
    below = _fraction(row, y, height, rows, align_corners)
    right = _fraction(column, x, width, columns, align_corners)
    target = tl.load(label + (image * rows + row) * columns + column, mask=inside, other=ignore).to(tl.int32)
    counted = inside & (target != ignore)

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
    known = counted & (target >= 0) & (target < classes)
    nothing = float("nan")  # for a label that is no class, where torch's own operations raise
    chosen = (
        w_tl * tl.load(top_left + target, mask=known, other=nothing).to(tl.float32)
        + w_tr * tl.load(top_right + target, mask=known, other=nothing).to(tl.float32)
        + w_bl * tl.load(bottom_left + target, mask=known, other=nothing).to(tl.float32)
        + w_br * tl.load(bottom_right + target, mask=known, other=nothing).to(tl.float32)
    )
    cell = (image * (height + 1) + y) * (width + 1) + x
    tl.store(loss + cell, tl.sum(tl.where(counted, lse - chosen, 0.0), 0))
    if needs_gradient:
        corner = tl.num_programs(0).to(tl.int64) * (height + 1) * (width + 1) * classes
        mine = parts + cell * classes
        for start in range(0, classes, block):
            c = start + lane
            score = _scores(
                top_left, top_right, bottom_left, bottom_right, w_tl, w_tr, w_bl, w_br, c, classes
            )
            slope = tl.exp(score - lse[:, None]) - (target[:, None] == c[None, :]).to(tl.float32)
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
