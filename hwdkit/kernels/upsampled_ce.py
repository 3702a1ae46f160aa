"""Cross-entropy of bilinearly up-sampled logits that never holds the up-sampled logits.

The plain way keeps three tensors of the label's size and C channels: 3.8 GB for 8 crops of 512x512 and 150
classes. Here a few rows exist at a time, the gradient is formed in the same pass, and what is kept for the
backward pass is that gradient, as large as the logits themselves.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from hwdkit.kernels.bilinear import matrix, span

CPU_BYTES = 2 * 2**20
"""Up-sampled logits held at a time on a CPU: what stays in a core's own cache."""

GPU_BYTES = 512 * 2**20
"""And on a GPU, where few large kernels beat many small ones."""


def upsampled_ce_sum(
    logits: Tensor, label: Tensor, *, align_corners: bool, ignore: int, budget: int | None = None
) -> Tensor:
    """Sum over the counted pixels of the cross-entropy of bilinearly up-sampled logits.

    The same as `F.cross_entropy(F.interpolate(logits, ...), label, reduction="sum")`, and differentiable
    once.

    Args:
        logits: (N, C, h, w).
        label: (N, H, W) int64; values are in [0, C) or `ignore`.
        align_corners: how the maps are stretched.
        ignore: the label that does not count.
        budget: bytes of up-sampled logits held at a time; None = what suits the device.

    Returns:
        A scalar in nats, at least float32.
    """
    wanted = logits.requires_grad and torch.is_grad_enabled()
    if budget is None:
        budget = CPU_BYTES if logits.device.type == "cpu" else GPU_BYTES
    total: Tensor = _UpsampledCE.apply(logits, label, align_corners, ignore, budget, wanted)
    return total


class _UpsampledCE(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        logits: Tensor,
        label: Tensor,
        align_corners: bool,
        ignore: int,
        budget: int,
        wanted: bool,
    ) -> Tensor:
        dtype = torch.promote_types(logits.dtype, torch.float32)
        (count, classes, height, width), size = logits.shape, label.shape[-2:]
        like = logits.new_empty(0, dtype=dtype)
        down = matrix(height, size[0], align_corners=align_corners, like=like)
        across = matrix(width, size[1], align_corners=align_corners, like=like)
        gradient = torch.empty_like(logits, dtype=dtype) if wanted else None
        row = classes * size[1] * like.element_size()
        rows = max(1, min(size[0], budget // row))
        images = max(1, min(count, budget // (row * size[0])))
        total = like.new_zeros(())
        for first in range(0, count, images):
            part = slice(first, first + images)
            loss, slope = _images(
                logits[part].to(dtype),
                label[part],
                (down, across),
                align_corners=align_corners,
                ignore=ignore,
                rows=rows,
                wanted=wanted,
            )
            total += loss
            if gradient is not None and slope is not None:
                gradient[part] = slope
        ctx.dtype = logits.dtype
        ctx.save_for_backward(gradient)
        return total

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, slope: Tensor) -> tuple[Tensor | None, ...]:
        (gradient,) = ctx.saved_tensors
        # A new tensor: with retain_graph the saved one is read again.
        return (gradient * slope).to(ctx.dtype), None, None, None, None, None


def _images(
    logits: Tensor,
    label: Tensor,
    resize: tuple[Tensor, Tensor],
    *,
    align_corners: bool,
    ignore: int,
    rows: int,
    wanted: bool,
) -> tuple[Tensor, Tensor | None]:
    """The loss of a few images and its gradient in their logits, in strips of so many rows of the label."""
    down, across = resize
    wide = logits @ across.T  # (n, C, h, W)
    back = torch.zeros_like(wide) if wanted else None
    total = logits.new_zeros(())
    for top in range(0, len(down), rows):
        strip = down[top : top + rows]
        first, last = span(top, top + len(strip), down.shape[1], len(down), align_corners=align_corners)
        strip = strip[:, first:last]
        scores = strip @ wide[:, :, first:last]  # (n, C, rows, W)
        marked = label[:, None, top : top + rows]
        counted = marked != ignore
        own = torch.where(counted, marked, 0)
        peak = scores.amax(1, keepdim=True)
        scores -= peak
        chosen = scores.gather(1, own)
        mass = scores.exp_().sum(1, keepdim=True)
        total += torch.where(counted, mass.log() - chosen, 0.0).sum()
        if back is not None:
            # softmax - onehot, and 0 where the pixel does not count
            scores *= counted / mass
            scores.scatter_(1, own, scores.gather(1, own) - counted.to(scores.dtype))
            back[:, :, first:last] += strip.T @ scores
    return total, None if back is None else back @ across
