"""The KL divergence of every channel's spatial softmax, weighted, with its gradient formed in the same pass.

The gradient of tau^2 KL(q || p) in the student's map is tau (p - q): the very difference that HWD's weights
are made of. So one pass over a few channels gives divergences and differences, one more the weights, and the
gradient alone is kept, where the plain way keeps five maps of the logits' size.
"""

from __future__ import annotations

import functools

import torch
from torch import Tensor

from hwdkit.kernels.choice import current_device, triton_takes
from hwdkit.kernels.gradient import wants_gradient, with_gradient
from hwdkit.kernels.weighting import DISTANCES, Divergence, Weigh, WeightNumbers

CPU_BYTES = 2**18
"""Size of one map of the channels handled at a time on a CPU: four of them stay in a core's own cache."""

GPU_BYTES = 2**30
"""And on a GPU, where a batch is one launch a step."""


def weighted_channel_kl(
    student: Tensor,
    teacher: Tensor,
    *,
    temperature: float,
    weigh: Weigh | None = None,
    divergence: Divergence = "mse",
    on_logits: bool = False,
    area: Tensor | None = None,
    numbers: WeightNumbers | None = None,
    budget: int | None = None,
) -> Tensor:
    """Mean over images and channels of w_c tau^2 KL(q_c || p_c), the weights taken as constants.

    CWD (Shu et al., ICCV 2021) Eq. 4 without weights; HWD (Sun et al., ICME 2023) Eqs. 2-5 with them.
    Differentiable once, in the student; computed in float32 at least, under autocast too.

    Args:
        student: (N, C, h, w) logits; p is their softmax over positions at this temperature.
        teacher: (N, C, h, w) logits, of which q is made.
        temperature: tau > 0.
        weigh: makes weights of divergences, each image once; None = all are 1.
        divergence, on_logits: what it is shown, see `channel_divergence` in `hwdkit.losses.hwd`.
        area: (N, C), what a divergence is divided by first; None = 1.
        numbers: what `weigh` does, where Triton's kernel can do it; None = only the function knows.
        budget: bytes of one map of what is handled at a time: a few images, or a few channels of one; None =
            what suits the device.

    Returns:
        A scalar in nats, at least float32; 0 without images.

    Raises:
        ValueError: the maps differ in shape, or the areas are those of other maps.
    """
    if student.shape != teacher.shape:
        shapes = f"{tuple(student.shape)} and {tuple(teacher.shape)}"
        raise ValueError(f"student and teacher must have maps of one shape, not {shapes}")
    if area is not None and area.shape != student.shape[:2]:
        raise ValueError(
            f"{tuple(area.shape)} areas for maps {tuple(student.shape)}: every image needs a label"
        )
    if budget is None:
        budget = CPU_BYTES if student.device.type == "cpu" else GPU_BYTES
    form = functools.partial(_value_and_gradient, weigh=weigh, budget=budget)
    if triton_takes(student) and (weigh is None) == (numbers is None):
        from hwdkit.kernels import triton_channel_kl  # triton is not everywhere

        form = functools.partial(triton_channel_kl.value_and_gradient, numbers=numbers)
    needs_gradient = wants_gradient(student)
    with torch.no_grad(), torch.autocast(student.device.type, enabled=False), current_device(student):
        value, gradient = form(
            student,
            teacher,
            temperature=temperature,
            divergence=divergence,
            on_logits=on_logits,
            area=area,
            needs_gradient=needs_gradient,
        )
    return with_gradient(value, student, gradient)


def _value_and_gradient(
    student: Tensor,
    teacher: Tensor,
    *,
    temperature: float,
    weigh: Weigh | None,
    divergence: Divergence,
    on_logits: bool,
    area: Tensor | None,
    budget: int,
    needs_gradient: bool,
) -> tuple[Tensor, Tensor | None]:
    dtype = torch.promote_types(student.dtype, torch.float32)
    count, classes = student.shape[:2]
    row = max(1, student[:1, :1].numel() * torch.finfo(dtype).bits // 8)
    images = max(1, min(count, budget // (row * max(1, classes))))
    channels = classes if images > 1 else max(1, min(classes, budget // row))
    gradient = student.new_empty(student.shape, dtype=dtype) if needs_gradient else None
    share = 1 / max(1, count * classes)
    sums = []
    for first in range(0, count, images):
        part = slice(first, first + images)
        kls, measured = [], []
        for start in range(0, classes, channels):
            place = (part, slice(start, start + channels))
            kl, p, q = _kl(student[place], teacher[place], temperature, dtype)
            room = p if gradient is None else gradient[place].view(p.shape)
            difference = torch.sub(p, q, out=room)
            kls.append(kl)
            if weigh is not None and divergence != "kl":
                if on_logits:
                    difference = (student[place].to(dtype) - teacher[place].to(dtype)).flatten(2)
                measured.append(DISTANCES[divergence](difference).sum(-1))
            del p, q, room, difference  # before the next channels' maps are made
        kl = _joined(kls)
        if weigh is None:
            weight = torch.ones_like(kl)
        else:
            far = kl if divergence == "kl" else _joined(measured)
            weight = weigh(far if area is None else far / area[part])
        sums.append((weight * kl).sum())
        if gradient is not None:
            gradient[part].mul_((weight * (temperature * share))[..., None, None])
    # One part is the rule on a GPU: no launch for a sum of one.
    total = functools.reduce(torch.add, sums) if sums else student.new_zeros((), dtype=dtype)
    return total * (temperature**2 * share), gradient


def _kl(student: Tensor, teacher: Tensor, temperature: float, dtype: torch.dtype) -> tuple[Tensor, ...]:
    """KL(q || p) (n, c), and the activation maps p and q (Eq. 2) (n, c, h*w), with one exp an element.

    log q - log p is the difference of the scaled logits less that of their log-sum-exps, and a log-sum-exp is
    the largest scaled logit less the logarithm of its probability.
    """
    s, t = (maps.flatten(2).to(dtype) / temperature for maps in (student, teacher))
    p, q = s.softmax(-1), t.softmax(-1)
    shift = t.amax(-1) - s.amax(-1) + (p.amax(-1) / q.amax(-1)).log()
    return t.sub_(s).sub_(shift[..., None]).mul_(q).sum(-1), p, q


def _joined(pieces: list[Tensor]) -> Tensor:
    return pieces[0] if len(pieces) == 1 else torch.cat(pieces, 1)
