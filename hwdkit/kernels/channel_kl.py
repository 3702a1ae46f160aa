"""The KL divergence of every channel's spatial softmax, weighted, with its gradient formed in the same pass.

The gradient of tau^2 KL(q || p) in the student's map is tau (p - q): the very difference that HWD's weights
are made of. So one pass over a few images gives divergences, weights, loss and gradient, and the gradient
alone is kept, where the plain way keeps five maps of the logits' size.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from hwdkit.kernels.gradient import wants_gradient, with_gradient

CPU_BYTES = 2**20
"""Size of one map of the images handled at a time on a CPU: near the caches, and little memory."""

GPU_BYTES = 2**30
"""And on a GPU, where a batch is one launch a step."""

Weigh = Callable[[slice, Tensor, Tensor], Tensor]
"""(images, p - q (n, C, h*w), KL (n, C)) -> weights (n, C); p is the student's map, q the teacher's.

Called without gradient and autocast. Neither tensor may be changed or kept."""


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
    Differentiable once, in the student; computed in float32 at least, under autocast too.

    Args:
        student: (N, C, h, w) logits; p is their softmax over positions at this temperature.
        teacher: (N, C, h, w) logits, of which q is made.
        temperature: tau > 0.
        weigh: gives the weights of some images; None = 1. It sees each image once.
        budget: bytes of one map of the images handled at a time; None = what suits the device.

    Returns:
        A scalar in nats, at least float32; 0 without images.

    Raises:
        ValueError: the maps differ in shape.
    """
    if student.shape != teacher.shape:
        shapes = f"{tuple(student.shape)} and {tuple(teacher.shape)}"
        raise ValueError(f"student and teacher must have maps of one shape, not {shapes}")
    if budget is None:
        budget = CPU_BYTES if student.device.type == "cpu" else GPU_BYTES
    wanted = wants_gradient(student)
    with torch.no_grad(), torch.autocast(student.device.type, enabled=False):
        value, gradient = _value_and_gradient(
            student, teacher, temperature=temperature, weigh=weigh, budget=budget, wanted=wanted
        )
    return with_gradient(value, student, gradient)


def _value_and_gradient(
    student: Tensor, teacher: Tensor, *, temperature: float, weigh: Weigh | None, budget: int, wanted: bool
) -> tuple[Tensor, Tensor | None]:
    dtype = torch.promote_types(student.dtype, torch.float32)
    count, classes = student.shape[:2]
    one = student[:1].numel() * torch.finfo(dtype).bits // 8
    images = max(1, min(count, budget // max(1, one)))
    gradient = student.new_empty(student.shape, dtype=dtype) if wanted else None
    share = 1 / max(1, count * classes)
    total = student.new_zeros((), dtype=dtype)
    for first in range(0, count, images):
        part = slice(first, first + images)
        log_q = _log_activation(teacher[part], temperature, dtype)
        log_p = _log_activation(student[part], temperature, dtype)
        q = log_q.exp()
        kl = log_q.sub_(log_p).mul_(q).sum(-1)
        difference = log_p.exp_().sub_(q)
        del log_p, log_q, q
        weight = torch.ones_like(kl) if weigh is None else weigh(part, difference, kl)
        total += (weight * kl).sum()
        if gradient is not None:
            slope = weight * (temperature * share)
            torch.mul(difference, slope[..., None], out=gradient[part].view(difference.shape))
        del difference  # before the next images' maps are made
    return total * (temperature**2 * share), gradient


def _log_activation(maps: Tensor, temperature: float, dtype: torch.dtype) -> Tensor:
    """The logarithm of the activation map (Eq. 2), (n, C, h*w): a tensor of its own, to be written over."""
    return (maps.flatten(2).to(dtype) / temperature).log_softmax(-1)
