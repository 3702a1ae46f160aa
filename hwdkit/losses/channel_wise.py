"""Channel-wise distillation, and the spatial softmax that it shares with HWD."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from hwdkit.losses.precision import at_least_float32
from hwdkit.types import SegOutput


def log_activation(logits: Tensor, *, temperature: float) -> Tensor:
    """Log of the activation map: a softmax over the positions of each channel (HWD Eq. 2, CWD Eq. 2).

    Args:
        logits: (N, C, h, w).
        temperature: tau > 0; larger is flatter.

    Returns:
        (N, C, h*w), at least float32. In log space, since softmax().log() is -inf from a logit range of
        about 400 on.
    """
    return (at_least_float32(logits).flatten(2) / temperature).log_softmax(-1)


def channel_kl(student: Tensor, teacher: Tensor, *, temperature: float) -> Tensor:
    """KL between the spatial distributions of each channel.

    CWD (Shu et al., ICCV 2021) Eq. 3 before the mean; HWD (Sun et al., ICME 2023) Eqs. 2-3.

    Args:
        student: (N, C, h, w) logits. Gradients flow here only.
        teacher: (N, C, h, w) logits at the same resolution.
        temperature: tau > 0.

    Returns:
        (N, C), in nats, already multiplied by tau**2.
    """
    log_p = log_activation(student, temperature=temperature)
    log_q = log_activation(teacher, temperature=temperature).detach()
    return temperature**2 * (log_q.exp() * (log_q - log_p)).sum(-1)


class CWD(nn.Module):
    """Channel-wise distillation on score maps: the mean of `channel_kl` over images and channels.

    The reduction (1/(N*C), times tau**2) is that of the authors' code; the paper's Eq. 4 prints a sum.
    """

    taps: tuple[str, ...] = ()

    def __init__(self, *, temperature: float = 4.0) -> None:
        super().__init__()
        if not 0 < temperature < math.inf:
            raise ValueError(f"temperature must be positive, not {temperature}")
        self.temperature = temperature

    def forward(self, student: SegOutput, teacher: SegOutput, label: Tensor) -> Tensor:
        with torch.autocast(student.logits.device.type, enabled=False):
            return channel_kl(student.logits, teacher.logits, temperature=self.temperature).mean()
