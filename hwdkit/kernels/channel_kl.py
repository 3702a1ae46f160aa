"""The KL divergence of every channel's spatial softmax, weighted, with its gradient formed in the same pass.

The gradient of tau^2 KL(q || p) in the student's map is tau (p - q): the very difference that HWD's weights
are made of. So one pass over a few images gives divergences, weights, loss and gradient, and the gradient
alone is kept, where the plain way keeps five maps of the logits' size.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

CPU_BYTES = 3 * 2**20
"""Size of one map of the images handled at a time on a CPU: near the caches, and little memory."""

GPU_BYTES = 2**30
"""And on a GPU, where a batch is one launch a step."""

Weigh = Callable[[slice, Tensor, Tensor], Tensor]
"""(images, p - q (n, C, h*w), KL (n, C)) -> weights (n, C); p is the student's map, q the teacher's.

Neither argument may be changed."""


def weighted_channel_kl(
    student: Tensor,
    teacher: Tensor,
    *,
    temperature: float,
    weigh: Weigh | None = None,
    budget: int | None = None,
) -> Tensor:
    """Mean over images and channels of w_c tau^2 KL(q_c || p_c), the weights taken as constants.

    CWD (Shu et al., ICCV 2021) Eq. 4 without weights; HWD (Sun et al., ICME 2023) Eqs. 2-4 with them.
    Differentiable once, in the student.

    Args:
        student: (N, C, h, w) logits; p is their softmax over positions at this temperature.
        teacher: (N, C, h, w) logits, of which q is made.
        temperature: tau > 0.
        weigh: gives the weights of some images; None = 1. It sees each image once.
        budget: bytes of one map of the images handled at a time; None = what suits the device.

    Returns:
        A scalar in nats, at least float32.
    """
    wanted = student.requires_grad and torch.is_grad_enabled()
    if budget is None:
        budget = CPU_BYTES if student.device.type == "cpu" else GPU_BYTES
    value: Tensor = _WeightedChannelKL.apply(student, teacher, temperature, weigh, budget, wanted)
    return value


class _WeightedChannelKL(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        student: Tensor,
        teacher: Tensor,
        temperature: float,
        weigh: Weigh | None,
        budget: int,
        wanted: bool,
    ) -> Tensor:
        dtype = torch.promote_types(student.dtype, torch.float32)
        count, classes = student.shape[:2]
        one = student[:1].numel() * torch.finfo(dtype).bits // 8
        images = max(1, min(count, budget // max(1, one)))
        gradient = student.new_empty(student.shape, dtype=dtype) if wanted else None
        rows = []
        for first in range(0, count, images):
            part = slice(first, first + images)
            log_q = _log_activation(teacher[part], temperature, dtype)
            log_p = _log_activation(student[part], temperature, dtype)
            q = log_q.exp()
            kl = log_q.sub_(log_p).mul_(q).sum(-1)
            difference = log_p.exp_().sub_(q)
            del log_p, log_q, q
            weight = torch.ones_like(kl) if weigh is None else weigh(part, difference, kl)
            rows.append((weight * kl).sum())
            if gradient is not None:
                slope = weight * (temperature / (count * classes))
                torch.mul(difference, slope[..., None], out=gradient[part].view(difference.shape))
            del difference  # before the next images' maps are made
        ctx.dtype = student.dtype
        ctx.save_for_backward(gradient)
        return torch.stack(rows).sum() * (temperature**2 / (count * classes))

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, slope: Tensor) -> tuple[Tensor | None, ...]:
        (gradient,) = ctx.saved_tensors
        # A new tensor: with retain_graph the saved one is read again.
        return (gradient * slope).to(ctx.dtype), None, None, None, None, None


def _log_activation(maps: Tensor, temperature: float, dtype: torch.dtype) -> Tensor:
    """The logarithm of the activation map (Eq. 2), (n, C, h*w): a tensor of its own, to be written over."""
    return (maps.flatten(2).to(dtype) / temperature).log_softmax(-1)
