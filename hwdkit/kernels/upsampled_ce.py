"""Cross-entropy of bilinearly up-sampled logits that never holds the up-sampled logits.

The plain way keeps three tensors of the label's size and C channels: 3.8 GB for 8 crops of 512x512 and 150
classes. Here a few rows of them exist at a time, beside two maps of an image that are up-sampled in width
only. The gradient is formed in the same pass, and it alone is kept for the backward pass: as large as the
logits themselves.
"""

from __future__ import annotations

import functools

import torch
from torch import Tensor

from hwdkit.kernels.bilinear import matrix, span
from hwdkit.kernels.choice import current_device, triton_takes
from hwdkit.kernels.gradient import wants_gradient, with_gradient

CPU_BYTES = 2 * 2**20
"""Up-sampled logits held at a time on a CPU: what stays in a core's own cache."""

GPU_BYTES = 512 * 2**20
"""And on a GPU, where few large kernels beat many small ones."""


def upsampled_ce_sum(
    logits: Tensor, label: Tensor, *, align_corners: bool, ignore: int, budget: int | None = None
) -> Tensor:
    """Sum over the counted pixels of the cross-entropy of bilinearly up-sampled logits.

    The same as `F.cross_entropy(F.interpolate(logits, ...), label, reduction="sum")`, an error for a label
    out of range included (Triton's kernel cannot raise: NaN). Differentiable once; computed in float32 at
    least, under autocast too.

    Args:
        logits: (N, C, h, w).
        label: (N, H, W) int64; values are in [0, C) or `ignore`.
        align_corners: how the maps are stretched.
        ignore: the label that does not count.
        budget: bytes of up-sampled logits held at a time; None = what suits the device.

    Returns:
        A scalar in nats, at least float32.

    Raises:
        ValueError: there is not one label map for every image.
    """
    if label.ndim != 3 or len(label) != len(logits):
        shapes = f"{tuple(label.shape)} for logits {tuple(logits.shape)}"
        raise ValueError(f"label must be (N, H, W) with the logits' N, not {shapes}")
    if budget is None:
        budget = CPU_BYTES if logits.device.type == "cpu" else GPU_BYTES
    form = functools.partial(_value_and_gradient, budget=budget)
    if triton_takes(logits):
        from hwdkit.kernels import triton_ce  # triton is not everywhere

        if triton_ce.takes(logits, label, align_corners=align_corners):
            form = functools.partial(triton_ce.value_and_gradient)
    needs_gradient = wants_gradient(logits)
    with torch.no_grad(), torch.autocast(logits.device.type, enabled=False), current_device(logits):
        value, gradient = form(
            logits, label, align_corners=align_corners, ignore=ignore, needs_gradient=needs_gradient
        )
    return with_gradient(value, logits, gradient)


def _value_and_gradient(
    logits: Tensor, label: Tensor, *, align_corners: bool, ignore: int, budget: int, needs_gradient: bool
) -> tuple[Tensor, Tensor | None]:
    dtype = torch.promote_types(logits.dtype, torch.float32)
    (count, classes, height, width), size = logits.shape, label.shape[-2:]
    like = logits.new_empty(0, dtype=dtype)
    down = matrix(height, size[0], align_corners=align_corners, like=like)
    across = matrix(width, size[1], align_corners=align_corners, like=like)
    gradient = torch.empty_like(logits, dtype=dtype) if needs_gradient else None
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
            needs_gradient=needs_gradient,
        )
        total += loss
        if gradient is not None and slope is not None:
            gradient[part] = slope
    return total, gradient


def _images(
    logits: Tensor,
    label: Tensor,
    resize: tuple[Tensor, Tensor],
    *,
    align_corners: bool,
    ignore: int,
    rows: int,
    needs_gradient: bool,
) -> tuple[Tensor, Tensor | None]:
    """The loss of a few images and its gradient in their logits, in strips of so many rows of the label."""
    down, across = resize
    wide = logits @ across.T  # (n, C, h, W)
    back = torch.zeros_like(wide) if needs_gradient else None
    total = logits.new_zeros(())
    for top in range(0, len(down), rows):
        strip = down[top : top + rows]
        first, last = span(top, top + len(strip), down.shape[1], len(down), align_corners=align_corners)
        strip = strip[:, first:last]
        scores = strip @ wide[:, :, first:last]  # (n, C, rows, W)
        marked = label[:, None, top : top + rows]
        counted = marked != ignore
        target = torch.where(counted, marked, 0)
        peak = scores.amax(1, keepdim=True)
        scores -= peak
        chosen = scores.gather(1, target)
        mass = scores.exp_().sum(1, keepdim=True)
        total += torch.where(counted, mass.log() - chosen, 0.0).sum()
        if back is not None:
            # softmax - onehot, and 0 where the pixel does not count
            scores *= counted / mass
            scores.scatter_(1, target, scores.gather(1, target) - counted.to(scores.dtype))
            back[:, :, first:last] += strip.T @ scores
    return total, None if back is None else back @ across
